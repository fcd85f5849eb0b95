// The test program's operator new, which can be told to fail.
#pragma once

namespace fluxion::testing {

// While it lives, one allocation of this thread fails: the one after `allowed` others.
class FailingAllocation {
 public:
  explicit FailingAllocation(long allowed);
  ~FailingAllocation();
  FailingAllocation(const FailingAllocation&) = delete;
  FailingAllocation& operator=(const FailingAllocation&) = delete;
  bool failed() const;  // whether there were so many
};

}  // namespace fluxion::testing
