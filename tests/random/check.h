// What must hold for every random program, on every backend and under every transform.
#pragma once

#include <string>

#include "tests/random/program.h"

namespace fluxion::testing {

struct CheckDevices {
  Device reference, cpu;
};

struct CheckOptions {
  // What can be left out.
  bool differences = true;
  bool second_order = true;
  bool batching = true;
  bool serialised = true;
  bool donation = true;
};

// Chooses points where the program is smooth and well conditioned: nothing closer to a kink than
// what finite differences and rounding need, no value that is not finite. False if there are none
// among the first few.
bool place(RandomProgram& program, const Device& reference);

struct CheckResult {
  bool placed = true;       // false: no points, nothing was checked
  std::string failure;      // "" or what differed, with numbers
  int taken_over = 0;       // outputs in the memory of donated arguments
  bool conditioned = true;  // false: no step made the finite differences agree among themselves, so
                            // they say nothing
};

// Checks, on points that `place` chose:
//   values        CPU = reference, in f64 tightly and in f32 loosely
//   jvp           = fourth-order central difference in f64
//   vjp           <u, J v> = <J' u, v>
//   compiled      = uncompiled, values and tangents
//   second order  the cotangent of x through x -> J(x) v is the tangent along v of x -> J(x)' u
//   plain         what regions hold, in their place, gives the same values and derivatives
//   vmapped       = looped
//   donated       arguments: the same results, also of arguments that are returned; nothing else
//                 changes
//   serialised    and parsed programs are equal, and run to equal bits
// On a device without f64: values, jvp, vjp and donation alone, against the reference in f32.
// Exceptions count as failures.
CheckResult check(const RandomProgram& program, const CheckDevices& devices,
                  const CheckOptions& options = {});

// place, then check.
CheckResult place_and_check(RandomProgram& program, const CheckDevices& devices,
                            const CheckOptions& options = {});

}  // namespace fluxion::testing
