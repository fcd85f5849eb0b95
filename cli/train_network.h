// The network of `fluxion train`: what the options leave open, as fits the data and the other
// options.
#pragma once

#include "cli/train_options.h"

namespace fluxion::cli {

// Of a dit or an mlp, where they fit.
struct NetworkDefaults {
  std::int64_t width, depth, frequencies;
};

// Gives a value to every option of the network that the chosen one has. Throws Error, in terms of
// options, where those that were given don't fit each other or the data.
void resolve_network(TrainOptions& options, const DataSet& data, const NetworkDefaults& defaults);

// The library's configuration of resolved options.
NetworkConfig network_for(const TrainOptions& options, const DataSet& data);

}  // namespace fluxion::cli
