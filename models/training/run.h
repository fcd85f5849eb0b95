// A training run: the loop around a Trainer, with its log, its pictures and its model files.
//
//   FOLDER/log.csv               step, seconds, loss, error, gradient_norm, learning_rate; means over the steps since the
//                                row before
//   FOLDER/samples-000500.png    samples of the averaged weights after 500 steps, always from the same noise
//   FOLDER/samples.png           the latest of them
//   FOLDER/model.safetensors     the averaged weights: the model to sample from
//   FOLDER/model-raw.safetensors the weights as the optimiser left them
#pragma once

#include <filesystem>
#include <functional>
#include <stop_token>

#include "models/images/image.h"
#include "models/training/trainer.h"

namespace fluxion {

struct RunOutput {
  std::filesystem::path folder;  // made if need be; empty: nothing is written
  double save_seconds = 60;      // between pictures and model files; also written at the end
  std::int64_t log_every = 10;   // steps between rows of the log
};

struct RunLimits {
  std::int64_t steps = 1000;
  double minutes = 0;  // of wall time; 0: no limit
};

struct RunProgress {
  std::int64_t step = 0, steps = 0;
  double loss = 0, error = 0, gradient_norm = 0;  // as in the last row of the log
  double learning_rate = 0;
  double seconds = 0, steps_per_second = 0, seconds_left = 0;
};

struct RunSummary {
  RunProgress last;
  bool stopped = false;                                  // by the stop token
  std::filesystem::path model, raw_model, samples, log;  // empty without a folder
};

// Trains until a limit is reached or a stop is requested, and saves. `report` is called after every step. Throws IoError where a file can't be
// written; Error once the loss is no longer finite, with the last good files left in place.
RunSummary run_training(Trainer& trainer, const RunLimits& limits, const RunOutput& output = {},
                        const std::function<void(const RunProgress&)>& report = {}, std::stop_token stop = {});

// Samples of the model beside what it learned from, as run_training draws them.
Image preview(const Trainer& trainer);

}  // namespace fluxion
