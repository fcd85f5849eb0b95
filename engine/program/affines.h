// All affine functions of a tape, for what changes its iteration space.
#pragma once

#include "engine/program/program.h"

namespace fluxion {

// Calls f with each: of loads, their guards, indices, ranges and stores. `tape` may be const.
template <class TapeType, class F>
void for_each_affine(TapeType& tape, F&& f) {
  for (auto& load : tape.loads) {
    f(load.address);
    for (auto& guard : load.guards) f(guard.range.index);
  }
  for (auto& index : tape.indices) f(index);
  for (auto& range : tape.ranges) f(range.index);
  for (auto& store : tape.stores) f(store.address);
}

}  // namespace fluxion
