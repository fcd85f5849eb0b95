// Whether a result is the reference, within the tolerance that comes with it.
#pragma once

#include <optional>
#include <string>

#include "tests/oracles/case.h"

namespace fluxion::oracles {

// Nothing if `got` passes; else one line: worst error against its bound, where, and both values.
// Shapes must agree, integers and booleans must be equal, and every value must be finite.
std::optional<std::string> difference(const HostTensor& got, const HostTensor& reference,
                                      const Tolerance& tolerance);

// Both sides of <cotangent, jvp> = <vjp, tangent>, and how far they may be apart: what errors
// within the tolerance in every element of jvp and vjp can make of it.
class InnerProducts {
 public:
  explicit InnerProducts(const Tolerance& tolerance) : tolerance_(tolerance) {}
  void add_left(const HostTensor& cotangent, const HostTensor& jvp) {
    left_ += product(cotangent, jvp);
  }
  void add_right(const HostTensor& vjp, const HostTensor& tangent) {
    right_ += product(tangent, vjp);
  }
  std::optional<std::string> difference() const;

 private:
  double product(const HostTensor& given, const HostTensor& result);

  Tolerance tolerance_;
  double left_ = 0, right_ = 0, allowed_ = 0;
};

}  // namespace fluxion::oracles
