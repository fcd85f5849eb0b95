// A training run: the loop around a Trainer, with its log, its pictures, its model files and its
// checkpoint.
//
//   FOLDER/config.json                RunOutput::settings
//   FOLDER/.lock                      names the process, while it runs (engine/platform/file.h)
//   FOLDER/checkpoint-previous.safetensors   the checkpoint before the last
//   FOLDER/checkpoint.safetensors     all that goes on: models/training/checkpoint.h
//   FOLDER/model.safetensors          the averaged weights: the model to sample from
//   FOLDER/model-raw.safetensors      the weights as the optimiser left them
//   FOLDER/model-ema0.99.safetensors  those of every further average, named by its decay
//   FOLDER/log.csv                    models/training/log.h
//   FOLDER/loss.svg                   the log as a chart
//   FOLDER/samples/step_000500.png    samples after 500 steps, always from the same noise
//   FOLDER/samples.png                the latest of them
//
// Rows are appended to the log; every other file is replaced in one piece: a run that is killed
// leaves nothing half written.
#pragma once

#include <filesystem>
#include <functional>
#include <limits>
#include <stop_token>

#include "models/training/log.h"
#include "models/training/trainer.h"

namespace fluxion {

struct RunOutput {
  std::filesystem::path folder;  // made if need be; empty: nothing is written
  // The checkpoint that the trainer was resumed from, if any; empty: that of the folder.
  std::filesystem::path resumed_from = {};
  LogSums since_row = {};    // as that checkpoint has them
  double save_seconds = 60;  // between pictures and model files; also written at the end
  // Between checkpoints, whichever comes first; 0: not by that. One is also written at the end.
  double checkpoint_seconds = 60;
  std::int64_t checkpoint_steps = 0;
  std::int64_t log_every = 10;  // steps between rows of the log
  std::string settings = "{}";  // JSON text of the caller's, kept in the checkpoint and beside it
};

// Limits of the whole run, with what was done before a checkpoint that it goes on from.
struct RunLimits {
  std::int64_t steps = 1000;
  double minutes = 0;  // of training; 0: no limit
};

struct RunProgress {
  std::int64_t step = 0, steps = 0;
  // As in the last row of the log; NaN before the first update that was not skipped.
  double loss = std::numeric_limits<double>::quiet_NaN(), error = loss, gradient_norm = loss;
  double learning_rate = 0;
  double loss_scale = 0;     // of the last update; 0: the loss is not scaled
  std::int64_t skipped = 0;  // updates since the row before that were skipped for it
  double seconds = 0;        // of the whole run
  double steps_per_second = 0;
  double seconds_left = 0;              // infinite without limits
  double fraction = 0;                  // of the run that is done, 0 to 1
  std::uint64_t peak_memory_bytes = 0;  // of this process so far; 0: unknown
};

struct RunSummary {
  RunProgress last;
  bool stopped = false;  // by the stop token
  std::filesystem::path model, raw_model, samples, log, chart,
      checkpoint;  // empty without a folder
};

struct RunHooks {
  std::function<void(const RunProgress&)> report = {};  // after every step
  std::function<void(const std::string&)> warn =
      {};  // what could not be written now and will be tried again
  std::stop_token stop = {};
};

// Whether a run that has come so far is at one of its limits. It then has only its files to write,
// into a folder that is not that of its checkpoint (output.resumed_from). Throws Error, saying what
// would let it go on, where there is no such folder.
bool has_ended(const RunLimits& limits, const RunOutput& output, std::int64_t steps_done,
               double seconds);

// Trains until a limit is reached or a stop is requested, and saves. A trainer that was resumed
// goes on with its log; `seconds_before` is what the checkpoint says of its time. A run in the
// folder of another, be it new or resumed from elsewhere, keeps that one's last checkpoint as
// checkpoint-before.safetensors; one that was resumed begins its log with the rows of the log
// beside its checkpoint. One that has ended already (has_ended) leaves all its files in another
// folder without a step.
//
// Pictures and charts that there is no memory for are left out with a warning. A file that can't be
// written on the way is warned of and tried again at the next interval, and training goes on; the
// file before it stays. Throws IoError, naming the last good checkpoint, if that is still so at the
// end, or at once if the folder can't be used, has no room for the files or is another run's; Error
// once the loss or the weights are no longer finite, with the last good files left in place and
// named, and as has_ended does; Error where f16 has too small a range for the
// gradients, or every update was skipped by the end. Whatever else is thrown, a checkpoint and
// model files are tried first.
RunSummary run_training(Trainer& trainer, const RunLimits& limits, const RunOutput& output = {},
                        const RunHooks& hooks = {}, double seconds_before = 0);

}  // namespace fluxion
