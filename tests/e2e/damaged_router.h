// Packages beside the tiny model's own, damaged as training can damage a router.
#pragma once

namespace penstock {

// routers/collapsed: finite; in layer 1 all rows go to the first four experts.
void WriteCollapsedRouter();

// routers/overflowing: weights near the largest there are, finite themselves; their logits are not.
void WriteOverflowingRouter();

}  // namespace penstock
