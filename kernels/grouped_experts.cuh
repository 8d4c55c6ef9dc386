// The experts' products for more rows than streaming_product.cuh is made for.
#pragma once

#include "kernels/expert_products.h"

namespace penstock::grouped {

// As ExpertGateUpCuda and ExpertDownCuda, where ExpertsInListOrder.
void GateUp(const ExpertProductsArgs& args, CudaStream stream);
void Down(const ExpertProductsArgs& args, CudaStream stream);

}  // namespace penstock::grouped
