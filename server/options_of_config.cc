#include "server/options_of_config.h"

#include "server/config/schema.h"

namespace penstock {

BackendOptions BackendOptionsOfConfig(const v1::ServerConfig& config) {
  BackendOptions options;
  options.model_path = config.model().path();
  options.dtype = EnumName(*v1::ModelConfig::Dtype_descriptor()->FindValueByNumber(
      static_cast<int>(config.model().dtype())));
  options.device = EnumName(*v1::ModelConfig::Device_descriptor()->FindValueByNumber(
      static_cast<int>(config.model().device())));
  options.dummy_weights = config.model().load_format() == v1::ModelConfig::LOAD_FORMAT_DUMMY;
  options.max_batch = config.engine().max_batch();
  options.prefill_chunk = config.engine().prefill_chunk();
  options.max_context = config.engine().max_context();
  options.block_tokens = config.engine().block_tokens();
  if (config.engine().has_kv_memory()) options.kv_bytes = config.engine().kv_memory();
  options.routers_root = config.routers().root();
  options.allow_other_base = config.routers().allow_other_base();
  return options;
}

Scheduler::Options SchedulingOfConfig(const v1::ServerConfig& config) {
  Scheduler::Options scheduling;
  scheduling.max_batch = config.engine().max_batch();
  scheduling.prefill_chunk = config.engine().prefill_chunk();
  scheduling.token_budget = config.engine().prefill_chunk() + config.engine().max_batch();
  scheduling.max_queue = config.limits().max_queue();
  scheduling.share_cache_across_tenants = config.cache().share_across_tenants();
  return scheduling;
}

}  // namespace penstock
