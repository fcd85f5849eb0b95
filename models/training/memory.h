// What a training run needs of the machine's memory, known before it starts.
#pragma once

#include "models/training/trainer.h"

namespace fluxion {

// Bytes that a run takes on top of what the process holds already: the step's own peak, batches
// made ahead, copies while files are written, and room for the program around it. An estimate from
// above. paired: the data have noise of their own (DataSet::has_noise).
std::uint64_t run_memory(const TrainingConfig& config, const MemoryReport& step,
                         bool paired = false);

// The largest batch, a power of two up to `most`, whose run fits into `bytes`; 0 if none does.
// Plans the step a few times, and leaves the device at most the plan of that batch.
std::int64_t largest_batch(TrainingConfig config, const Device& device, std::uint64_t bytes,
                           std::int64_t most, bool paired = false);

}  // namespace fluxion
