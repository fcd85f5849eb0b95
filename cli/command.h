// What the subcommands have in common.
#pragma once

#include <CLI/CLI.hpp>
#include <functional>
#include <nlohmann/json.hpp>
#include <string>

#include "cli/program.h"
#include "engine/device.h"

namespace fluxion::cli {

// A subcommand: its parser, and what to do once the command line has been read. The function
// returns the exit code.
struct Command {
  CLI::App* parser = nullptr;
  std::function<int()> run;
};

// Each adds one subcommand to the program. The streams outlive it.
Command add_train(CLI::App& program, const Streams& streams);
Command add_sample(CLI::App& program, const Streams& streams);
Command add_eval(CLI::App& program, const Streams& streams);
Command add_inspect(CLI::App& program, const Streams& streams);
Command add_import(CLI::App& program, const Streams& streams);
Command add_check(CLI::App& program, const Streams& streams);
Command add_bench(CLI::App& program, const Streams& streams);
Command add_graph(CLI::App& program, const Streams& streams);

// --threads and --json, as every subcommand has them.
struct CommonOptions {
  int threads = 0;
  bool json = false;
};
void add_threads(CLI::App& parser, CommonOptions& options);
void add_json(CLI::App& parser, CommonOptions& options);

// Checks of a numeric option, with a message that a person can read.
CLI::Validator more_than_zero();
CLI::Validator not_negative();

// The one JSON object of a --json run.
void write_json(std::ostream& out, const nlohmann::json& object);

// "1,234,567", "1.2 MiB", "1:05:07", "2.4 minutes".
std::string grouped(std::int64_t number);
std::string bytes_text(std::uint64_t bytes);
std::string clock_text(double seconds);

// Text from a file, made safe for a terminal: control characters become \xNN, and what is longer
// than `limit` ends in "...".
std::string printable(const std::string& text, std::size_t limit = 200);

}  // namespace fluxion::cli
