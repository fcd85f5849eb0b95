// A stored function of a batch of any size: the graph for a batch of one, and which of its integers
// (sizes, limits of slices, ...) grow with the batch, and by how much for each further sample.
//
//   const BatchedGraph step = batched([&](std::int64_t batch) { return store(..); });
//   const std::vector<Tensor> y = call(at_batch(step, 64), arguments, device);
#pragma once

#include <functional>

#include "engine/export/stored_graph.h"

namespace fluxion {

// Integer number `integer` of a graph, in the order of its inputs' sizes, then of its nodes'
// attributes and, for an iota, its sizes, is that of the graph for one sample plus `per_sample` for
// each further one.
struct Growth {
  std::uint32_t integer = 0;
  std::int64_t per_sample = 0;
  bool operator==(const Growth&) const = default;
};

struct BatchedGraph {
  StoredGraph one;              // for a batch of 1
  std::vector<Growth> growths;  // by `integer`, ascending
  bool operator==(const BatchedGraph&) const = default;
};

// `trace(batch)` stores one function for a batch of that size. Throws Error unless the graphs for
// several sizes have the same nodes, and integers that grow evenly.
BatchedGraph batched(const std::function<StoredGraph(std::int64_t batch)>& trace);

// The graph for a batch of that size, at least 1. Throws Error if it is no sound graph, which can't
// be for one that `batched` has made.
StoredGraph at_batch(const BatchedGraph& graph, std::int64_t batch);

}  // namespace fluxion
