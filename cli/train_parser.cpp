// The options of `fluxion train` and their help.
#include "cli/train_method.h"
#include "cli/train_options.h"
#include "cli/train_presets.h"
#include "engine/error.h"
#include "engine/number_text.h"

namespace fluxion::cli {

namespace {

Check interval() {
  return {"INTERVAL", [](const std::string& text) {
            try {
              interval_from(text);
            } catch (const std::exception& error) {
              return std::string(error.what());
            }
            return std::string();
          }};
}

// An interval in time, as its seconds.
Range seconds() {
  return {"", "a time from 0 to 1e9 seconds such as 90, 30s, 5m or 1h",
          [](const std::string& text) -> std::optional<std::string> {
            if (text.ends_with("step") || text.ends_with("steps")) return std::nullopt;
            try {
              return number_text(interval_from(text).seconds);
            } catch (const Error&) {
              return std::nullopt;
            }
          }};
}

}  // namespace

void add_train_options(const Parser& parser, TrainOptions& options) {
  parser.footer(
      "OUT receives model.safetensors (averaged weights: the one to sample from), "
      "model-raw.safetensors, checkpoint.safetensors,\n"
      "config.json, log.csv, loss.svg, samples.png and samples/step_N.png. Ctrl-C ends a run early "
      "and saves it; pressed again, it\n"
      "ends at once. The same settings, seed and thread count give the same model, bit for bit, "
      "also over --resume.\n\n"
      "Examples:\n"
      "  fluxion train --data glyphs --minutes 5 --out out/digits\n"
      "  fluxion train --resume out/digits --minutes 10\n"
      "  fluxion train --data glyphs --omega 1 --kappa 0.5 --out out/guided\n"
      "  fluxion train --data 8gaussians --method flow-matching --out out/flow\n"
      "  fluxion train --data path/to/cifar10 --net unet --width 64 --flip --out out/unet\n"
      "  fluxion train --preset mnist --data path/to/mnist --out out/mnist");

  add_data_options(parser, options);

  const std::string network = "Network";
  parser
      .add_option(
          "--net", options.net,
          "mlp, dit, unet or song-unet (default: dit for square images, unet for others, mlp for "
          "points)")
      .check(one_of({"mlp", "dit", "unet", "song-unet"}))
      .type_name("NET")
      .group(network);
  parser
      .add_option("--architecture", options.architecture,
                  "Of a song-unet: ddpm++, or ncsn++, which has random frequencies of time, smooth "
                  "filters between levels, and the image beside each of them (default: ddpm++)")
      .check(one_of({"ddpm++", "ncsn++"}))
      .type_name("NAME")
      .group(network);
  parser
      .add_number("--width", options.width, whole(1, 8192),
                  "Hidden size, a unet's or song-unet's channels at full resolution (default: 128, "
                  "of these "
                  "two 32, or what is nearest of the multiples of --heads)")
      .type_name("N")
      .group(network);
  parser
      .add_number(
          "--depth", options.depth, whole(1, 256),
          "Blocks of a dit, hidden layers of an mlp, residual blocks in the levels of a unet "
          "or song-unet (default: 4, 3 and 1)")
      .type_name("N")
      .group(network);
  parser
      .add_number(
          "--heads", options.heads, whole(1, 1024),
          "Attention heads of a dit or unet (default: width / 32 and width / 16, or the next "
          "below that divides the width)")
      .type_name("N")
      .group(network);
  parser
      .add_number(
          "--patch", options.patch, whole(1, 64),
          "Height and width of a dit's patch (default: 4 or 2 where they divide the image's, "
          "else its smallest divisor that leaves 4 x 4 patches, else 1)")
      .type_name("N")
      .group(network);
  parser
      .add_number("--frequencies", options.frequencies, whole(0, 16),
                  "Fourier features of an mlp's input: cos and sin of 2^k z for k < N (default: 3)")
      .type_name("N")
      .group(network);

  parser
      .add_number("--channel-mult", options.channel_mult, whole(1, 64),
                  "Levels of a unet or song-unet, each half as high and wide as the one before: "
                  "their channels "
                  "in widths, e.g. 1,2,2 (default: 1,2,2,.. down to 8 x 8)")
      .delimiter(',')
      .type_name("N,..")
      .group(network);
  parser
      .add_number("--attention", options.attention, whole(0, 2048),
                  "Levels of a unet or song-unet with attention, by how far they are scaled down, "
                  "e.g. 2,4; 0: "
                  "none (default: those of at most 16 x 16)")
      .delimiter(',')
      .type_name("N,..")
      .group(network);

  parser
      .add_number("--dropout", options.dropout, real(0, 0.95),
                  "Share of the activations in the blocks of a unet or song-unet that an update "
                  "leaves out, the same in all that it compares; ict and ect use 0.3 and 0.2")
      .type_name("X")
      .show_default()
      .group(network);
  parser
      .add_option("--init", options.init,
                  "Begin with the weights of this model, however it was trained, where the network "
                  "has parameters of their names and shapes")
      .type_name("MODEL")
      .group(network);

  add_method_options(parser, options);

  const std::string optimiser = "Optimiser";
  parser
      .add_number(
          "--steps", options.steps, whole(1, most_steps),
          "Updates of the whole run, in place of the minutes of a preset (default: 4000 for "
          "images, 30000 for points; no limit if --minutes is given)")
      .type_name("N")
      .group(optimiser);
  parser
      .add_number("--minutes", options.minutes, real(0, 1e7, Precision::double_precision),
                  "Stop after this many minutes of training, resumed parts included; 0: no limit")
      .type_name("M")
      .show_default()
      .group(optimiser);
  parser
      .add_number(
          "--batch", options.batch, word_or("auto", whole(1, 1 << 20)),
          "Samples in an update; auto: as many as fit in memory (default: 64 images, 512 points)")
      .type_name("B|auto")
      .group(optimiser);
  parser
      .add_flag("--recompute", options.recompute,
                "Compute each block of the network again for the gradients instead of keeping it: "
                "a fraction of the memory, a sixth to a third more time (images)")
      .group(optimiser);
  parser
      .add_option("--precision", options.precision,
                  "Of products with weights: f32, bf16 or f16, which store their factors and "
                  "cotangents in 16 bits, but no tangents; or OPERANDS/TANGENTS/COTANGENTS, e.g. "
                  "bf16/bf16/bf16. Weights and all else stay f32")
      .check(precisions())
      .type_name("P")
      .show_default()
      .group(optimiser);
  parser
      .add_option("--optimiser", options.optimiser,
                  "adamw, adam, or radam, which holds back while it has seen few gradients, as the "
                  "papers of ict and ect train")
      .check(one_of(optimiser_names()))
      .type_name("NAME")
      .show_default()
      .group(optimiser);
  parser
      .add_number(
          "--lr", options.learning_rate, real(1e-20, 1e6),
          "Learning rate (default: 0.001 for images, 0.005 for points, which suits some 30000 "
          "updates; longer runs want less)")
      .type_name("X")
      .group(optimiser);
  parser
      .add_option(
          "--schedule", options.schedule,
          "Of the learning rate after the warm-up: constant, or cosine down to --final-lr over "
          "--steps "
          "(default: cosine for points if --steps is known and beyond the warm-up, else constant)")
      .check(one_of({"constant", "cosine"}))
      .type_name("NAME")
      .group(optimiser);
  parser
      .add_number("--final-lr", options.final_learning_rate, real(0, 1e6),
                  "Where a cosine schedule ends")
      .type_name("X")
      .show_default()
      .group(optimiser);
  parser
      .add_number("--warmup", options.warm_up, whole(0, most_steps),
                  "Updates over which the rate rises to --lr (default: 100, or a tenth of --steps "
                  "where a cosine has no more)")
      .type_name("N")
      .group(optimiser);
  parser
      .add_number("--clip", options.clip, real(0, 1e20),
                  "Longest gradient, over all parameters together; 0: any")
      .type_name("X")
      .show_default()
      .group(optimiser);
  parser
      .add_number("--weight-decay", options.weight_decay, real(0, 1e6),
                  "Weight decay: decoupled with adamw, in the gradient with adam and radam")
      .type_name("X")
      .show_default()
      .group(optimiser);
  parser
      .add_number("--ema", options.ema, real(0, 1),
                  "Decays of the averaged weights, e.g. 0.999,0.9999: the first is that of "
                  "model.safetensors, the others get files of their own")
      .delimiter(',')
      .type_name("X,..")
      .show_default()
      .group(optimiser);

  const std::string run = "Run";
  parser.add_option("--out", options.out, "Folder for the results")
      .type_name("DIR")
      .show_default()
      .group(run);
  parser
      .add_number("--save-every", options.save_every, seconds(),
                  "Time between pictures and model files: 90 (seconds), 30s, 5m, 1h; they are "
                  "always written at the end")
      .type_name("T")
      .show_default()
      .group(run);
  parser
      .add_option("--checkpoint-every", options.checkpoint_every,
                  "Time or steps between checkpoints: 500steps, 30s, 5m, 1h; 0: only at the end, "
                  "where one is always written")
      .check(interval())
      .type_name("T")
      .show_default()
      .group(run);
  parser
      .add_option("--resume", options.resume,
                  "Go on from the checkpoint in this folder (default: that of --out), or from this "
                  "checkpoint file, as if the run had never stopped")
      .value_optional()
      .type_name("[DIR|FILE]")
      .group(run);
  parser
      .add_flag("--relabel", options.relabel,
                "With --resume: take the classes of the data for those of the run in their order, "
                "whatever they are called now")
      .group(run);
  parser
      .add_option("--preset", options.preset,
                  "Settings for a purpose: " + preset_names() + "; other options override them")
      .type_name("NAME")
      .group(run);
  parser
      .add_flag("--list-presets", options.list_presets,
                "Show the settings of every preset, and do nothing else")
      .group(run);
  parser
      .add_flag("--list-methods", options.list_methods,
                "Say what every method trains, and do nothing else")
      .group(run);
  parser
      .add_option("--config", options.config_file,
                  "Settings as JSON, {\"width\": 128, ..}, such as the config.json of a run; other "
                  "options override them")
      .type_name("FILE")
      .group(run);
  add_memory_limit(parser, options).group(run);
  parser.add_flag("--quiet", options.quiet, "Say nothing but warnings and errors").group(run);
  parser.add_number("--seed", options.seed, seeds(), "Seed of everything random")
      .type_name("S")
      .show_default()
      .group(run);
  add_device(parser, options);
  add_json(parser, options);
}

}  // namespace fluxion::cli
