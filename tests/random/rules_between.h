// Between the transforms and their tables of rules: notes which rules run, and can break one. The
// linker puts it there (-Wl,--wrap, see CMakeLists.txt), so the library itself knows nothing of it
// and pays nothing.
#pragma once

#include <compare>
#include <optional>
#include <set>
#include <string>
#include <utility>

#include "engine/graph/op_names.h"
#include "engine/graph/region.h"

namespace fluxion::testing {

enum class Table : std::uint8_t { jvp, transpose, batching };

// A rule: that of an op, or of one kind of region.
struct Rule {
  Table table = Table::jvp;
  Op op = Op::identity;
  Region::Kind kind = Region::Kind::checkpoint;  // of a region
  auto operator<=>(const Rule&) const = default;
};
std::string to_string(const Rule& rule);  // "jvp of exp", "transpose of a checkpoint"

enum class Fault : std::uint8_t {
  scaled,  // by 1.001
  negated,
  dropped,    // no tangent, no cotangent; one example stands for all
  invented,   // the input's tangent where there was none
  exchanged,  // two results of one type change places; the examples come in the opposite order
};

struct Mutation {
  Rule rule;
  std::size_t result = 0;
  Fault fault = Fault::scaled;
};
std::string to_string(const Mutation& mutation);

// Everything below is this thread's.

// Notes every rule that runs while it lives.
class RuleWatch {
 public:
  RuleWatch();
  ~RuleWatch();
  RuleWatch(const RuleWatch&) = delete;
  RuleWatch& operator=(const RuleWatch&) = delete;
  const std::set<Rule>& seen() const { return seen_; }
  // The results that a rule gave, and those it left empty - a result may be both, at different
  // calls.
  std::set<std::pair<Rule, std::size_t>> given, empty;

 private:
  friend struct RulesBetween;
  std::set<Rule> seen_;
  RuleWatch* outer_;
};

// Breaks a rule while it lives.
class BrokenRule {
 public:
  explicit BrokenRule(const Mutation& mutation);
  ~BrokenRule();
  BrokenRule(const BrokenRule&) = delete;
  BrokenRule& operator=(const BrokenRule&) = delete;

 private:
  Mutation mutation_;
};
// How often the broken rule was asked, and changed something.
std::size_t times_broken();

}  // namespace fluxion::testing
