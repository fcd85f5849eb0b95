// Small models for tests of exported samplers.
#pragma once

#include "engine/graph/ops.h"
#include "models/model_file.h"

namespace fluxion::testing {

inline const NetworkConfig export_mlp = MlpConfig{.data_dim = 2, .hidden = {16}};
inline const NetworkConfig export_dit = DitConfig{.image_size = 8,
                                                  .channels = 1,
                                                  .patch_size = 4,
                                                  .hidden_size = 16,
                                                  .depth = 2,
                                                  .num_heads = 2,
                                                  .num_classes = 3};
inline const NetworkConfig export_unet = UnetConfig{.image_size = {8, 8},
                                                    .channels = 1,
                                                    .base = 8,
                                                    .channel_mult = {1, 2},
                                                    .num_res_blocks = 1,
                                                    .attention_ds = {2},
                                                    .norm_groups = 4,
                                                    .num_heads = 2,
                                                    .num_classes = 3};

// Parameters that are all different from zero, as training leaves them.
inline Model exported_model(const NetworkConfig& network, const Device& device) {
  Model model;
  model.info.network = network;
  model.info.dataset = "test";
  model.parameters = initialise(network, random_key(1, device));
  std::uint32_t number = 0;
  for (auto& [key, value] : model.parameters)
    value = value + 0.05 * normal(fold_in(random_key(2, device), number++), value.shape());
  eval(leaves(model.parameters));
  return model;
}

}  // namespace fluxion::testing
