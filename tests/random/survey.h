// Counts over many random programs: what was checked, and how often each op was.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "tests/random/check.h"

namespace fluxion::testing {

// Program `number` of those of `seed`, not yet placed.
RandomProgram numbered_program(std::uint64_t seed, std::uint64_t number);

// The program made as small as it gets while `check` still fails.
RandomProgram smallest_failing(const RandomProgram& program, const CheckDevices& devices,
                               const CheckOptions& options);

struct Survey {
  std::int64_t programs = 0;       // drawn and checked
  std::int64_t refused = 0;        // drawn, but too near a kink at all points tried
  std::int64_t unconditioned = 0;  // checked, but finite differences said nothing
  std::int64_t taking_over = 0;    // checked, and some output took over a donated argument
  std::map<Op, std::int64_t> with_op;
  std::vector<int> nodes;  // per program: ops that are not leaves

  void add(const RandomProgram& program, const CheckResult& result);
  int median_nodes() const;
  std::string text() const;
  // The ops - all but those that no function puts into a graph - that are in less than this part of
  // the programs, "" if none.
  std::string rare(double part) const;
};

}  // namespace fluxion::testing
