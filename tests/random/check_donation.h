// The check of donated arguments.
#pragma once

#include "tests/random/check.h"

namespace fluxion::testing {

// Compiles the program with chance saying which arguments are donated, with some inputs as two
// arguments, and with further outputs: arguments as they are, views of them, updates in their
// place, outputs asked for twice. Results must be those of the reference backend, other arguments
// must not change, and donated ones must refuse to be used. Throws Failure; returns how many
// outputs took over memory.
int check_donation(const RandomProgram& program, const CheckDevices& devices);

}  // namespace fluxion::testing
