// The programs that functions compile to.
#pragma once

#include <utility>

#include "engine/compile.h"
#include "engine/program/program.h"
#include "tests/catch.h"

namespace fluxion::testing {

// What f compiles to for arguments like these: a program that passes the verifier and is the same
// after it was written and read.
template <class F, class... Args>
Program program_of(F f, const Args&... args) {
  Program program = compile(std::move(f)).program(args...);
  verify(program);
  CHECK(parse_program(serialise(program)) == program);
  return program;
}

}  // namespace fluxion::testing
