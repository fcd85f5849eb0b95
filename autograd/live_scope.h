// How long the leaves of a transform are live.
#pragma once

#include <memory>

#include "engine/graph/tensor.h"

namespace fluxion {

// Leaves in a scope are live until the scope dies; until then nodes that depend on them keep their
// inputs when evaluated. Scopes nest: the one that began first is the outermost.
class LiveScope {
 public:
  LiveScope();
  ~LiveScope();
  LiveScope(const LiveScope&) = delete;
  LiveScope& operator=(const LiveScope&) = delete;

  // A leaf just made.
  void add(const Tensor& leaf) const { leaf.node()->set_scope(scope_); }

 private:
  std::shared_ptr<TraceScope> scope_;
};

}  // namespace fluxion
