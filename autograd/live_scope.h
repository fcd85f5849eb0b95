// The life of a transform's leaves.
#pragma once

#include <memory>

#include "engine/graph/tensor.h"

namespace fluxion {

// Leaves that are put into a scope are live - and nodes made from them keep their inputs - until
// the scope dies. Scopes nest: one that began earlier is further out.
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
