// The pairs of noise and sample that `fluxion train --method reflow` trains on.
#pragma once

#include "cli/program.h"
#include "cli/train_options.h"

namespace fluxion::cli {

// Where the method learns from pairs of a teacher: makes those that are not there yet, in the
// folder pairs of --out, and makes them the data. `given`: settings of the command line. Returns 0,
// or the exit code of a signal that stopped it. Throws Error, saying what to give.
int prepare_pairs(TrainOptions& options, const std::set<std::string>& given, const Device& device,
                  const Streams& streams);

}  // namespace fluxion::cli
