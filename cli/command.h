// What the subcommands have in common.
#pragma once

#include <cstdint>
#include <functional>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <ostream>
#include <string>
#include <vector>

#include "cli/command_line.h"
#include "engine/device.h"

namespace fluxion::cli {

// A subcommand: its parser, and what to do once the command line has been read. The function
// returns the exit code.
struct Command {
  Parser parser;
  std::function<int()> run;
};

// Each adds one subcommand to the program. The streams outlive it.
Command add_train(CommandLine& program, const Streams& streams, const MethodTable& methods);
Command add_zoo(CommandLine& program, const Streams& streams, const MethodTable& methods);
Command add_sample(CommandLine& program, const Streams& streams);
Command add_eval(CommandLine& program, const Streams& streams);
Command add_inspect(CommandLine& program, const Streams& streams);
Command add_import(CommandLine& program, const Streams& streams);
Command add_export(CommandLine& program, const Streams& streams);
Command add_check(CommandLine& program, const Streams& streams);
Command add_bench(CommandLine& program, const Streams& streams);
Command add_graph(CommandLine& program, const Streams& streams);
Command add_devices(CommandLine& program, const Streams& streams);
// The last to be added: it tells of those before it.
Command add_completion(CommandLine& program, const Streams& streams);

// --device, --memory-limit and --json, as every subcommand has them that computes something.
struct CommonOptions {
  std::string device = "cpu";
  std::optional<std::int64_t> threads;  // --threads N is the old way to say --device cpu:N
  std::optional<double> memory_limit;   // in GiB
  bool json = false;
};
Option add_memory_limit(const Parser& parser, CommonOptions& options);
// Bytes that may still be taken, of the machine and of the limit. A great number where neither
// says.
std::uint64_t free_memory(const CommonOptions& options);
// Bytes that a step on the device may still take, when the host has taken `first`: of the device's
// memory, and of the host's where that is the same.
std::uint64_t free_memory(const CommonOptions& options, const Device& device, std::uint64_t first);
void add_device(const Parser& parser, CommonOptions& options);
// The name of the device that the options ask for, --threads included.
std::string device_name(const CommonOptions& options);
// With the memory limit as its budget.
// Says on the error stream how far a driver is with compiling kernels, if that takes a while.
Device open_device(const CommonOptions& options, const Streams& streams, bool quiet = false);
// Threads for what is computed beside the device, such as metrics; 0: one per core.
int host_threads(const CommonOptions& options);
void add_json(const Parser& parser, CommonOptions& options);

// What several commands take. Updates are counted in an i32; no limit on samples and steps of a
// sampler is one that a run of days would meet.
inline constexpr std::uint64_t most_steps = 2147483647, most_samples = 2147483647,
                               most_sampler_steps = 1000000;
Range seeds();
// Texts that precision_from takes.
Check precisions();
Range guidance_scales();

// --precision of commands that evaluate networks.
Option add_precision(const Parser& parser, std::string& precision);

// Throws OutOfMemory where samples of this shape, in batches, can't be held, with so many bytes of
// noise and pictures beside them.
void check_room_for_samples(const CommonOptions& options, const Shape& sample_shape,
                            std::int64_t count, std::int64_t batch, std::uint64_t beside = 0);

// A path, and the option that it was given with.
struct NamedPath {
  std::string option, path;
};
// Throws Error where a file to be written is one that the command reads, or where two are one.
// Empty paths, pipes and devices are passed over.
void check_files_differ(const std::string& command, const std::vector<NamedPath>& written,
                        const std::vector<NamedPath>& read);

// Throws Error for the name of a picture that promises another format than PNG; `option` begins the
// message, `instead` ends it. Pipes and devices have any name.
void check_picture_name(const std::string& option, const std::string& path,
                        const std::string& instead = "");

// Throws IoError where no file can be put at one of these paths: before anything that takes long.
// Empty paths are passed over.
void check_can_be_written(const std::vector<NamedPath>& written);

// The one JSON object of a --json run.
void write_json(std::ostream& out, const nlohmann::json& object);

// "1,234,567", "1 kernel" or "2 kernels", "1.2 MiB", "1:05:07", "2.4 minutes".
std::string grouped(std::int64_t number);
std::string counted(std::int64_t count, const std::string& noun);
std::string bytes_text(std::uint64_t bytes);
std::string clock_text(double seconds);

// Text from a file, made safe for a terminal: control characters become \xNN, and what is longer
// than `limit` ends in "...".
std::string printable(const std::string& text, std::size_t limit = 200);

}  // namespace fluxion::cli
