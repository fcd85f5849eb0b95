// The checks of the examples of ops (tests/op_examples.h), one by one, with the rules that each of
// them ran: what the coverage test counts and what has to catch a broken rule.
#pragma once

#include <map>
#include <set>
#include <string>
#include <vector>

#include "tests/op_examples.h"
#include "tests/random/rules_between.h"

namespace fluxion::testing {

enum class Kind : std::uint8_t {
  first_order,   // jvp against finite differences, <u, Jv> = <J'u, v>, no tangent on what is not
                 // floating
  second_order,  // the same of the gradient of a scalar of the outputs
  transposed,  // of functions linear in one operand: <u, f(v) - f(0)> = <f'(u), v> with the others
               // fixed
  reverse,     // of functions without forward mode: the vjp against finite differences, and the
               // transpose of what their jvp is called
  batching,    // vmap against a loop, for subsets of the operands
};

struct ExampleCheck {
  const OpExample* example;
  Kind kind;
};

// "" or what went wrong; exceptions too.
std::string run(const ExampleCheck& check);

// The examples of op_examples(), and those of regions without forward mode.
const std::vector<OpExample>& all_examples();
const std::vector<ExampleCheck>& all_checks();

struct Reached {
  std::map<Rule, std::vector<ExampleCheck>>
      by;  // the checks - that passed - in which each rule ran
  std::set<std::pair<Rule, std::size_t>> given, empty;
  std::vector<std::string> failures;
};
// Runs every check once per process.
const Reached& reached_rules();

// Rules that are refused, or that nothing can reach, each with the reason. One list for every test
// of rules.
const std::map<Rule, std::string>& refused_rules();

}  // namespace fluxion::testing
