// The report of `fluxion devices --report`: what a device is, whether it computes rightly, and how
// fast it is, as one JSON file for a bug report.
#pragma once

#include <filesystem>
#include <nlohmann/json_fwd.hpp>

#include "cli/program.h"
#include "engine/device.h"

namespace fluxion::cli {

// Runs the self-test, then measures, within about `seconds`; what there is no time for is left out
// and named. `header` are the report's first members. The file is replaced after each result, so
// that a run which is stopped, or a machine that hangs, leaves what is known. Returns the report.
nlohmann::json write_device_report(const std::filesystem::path& file, nlohmann::json header,
                                   const Device& device, double seconds, const Streams& streams);

// The same for people.
void print_device_report(std::ostream& out, const nlohmann::json& report);

}  // namespace fluxion::cli
