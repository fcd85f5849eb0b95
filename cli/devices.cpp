// `fluxion devices`: where this machine can compute.
#include <algorithm>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>

#include "backends/open_device.h"
#include "cli/command.h"
#include "engine/error.h"
#if FLUXION_WITH_AUTOGRAD
#include "cli/device_report.h"
#endif

namespace fluxion::cli {

namespace {

struct DevicesArguments : CommonOptions {
  std::string report;
  double seconds = 60;
};

void print_device(std::ostream& out, const ListedDevice& device) {
  out << device.name << "  " << printable(device.description) << "\n";
  const auto line = [&](const std::string& name, const std::string& value) {
    std::string label = name + ":";
    label.resize(std::max<std::size_t>(34, label.size() + 1), ' ');
    out << "  " << label << printable(value) << "\n";
  };
  if (device.preferred && device.name != "cpu") line("chosen by", "vulkan (without a number)");
  if (!device.refused.empty()) line("can't be used", device.refused);
  line("kind", device.kind);
  if (!device.driver.empty()) line("driver", device.driver);
  if (device.memory_bytes > 0) line("memory", bytes_text(device.memory_bytes));
  for (const auto& [name, value] : device.capabilities) line(name, value);
  for (const std::string& quirk : device.quirks) line("works around", quirk);
}

nlohmann::json json_of(const ListedDevice& device) {
  nlohmann::json capabilities = nlohmann::json::object();
  for (const auto& [name, value] : device.capabilities) capabilities[name] = value;
  nlohmann::json object = {{"name", device.name},
                           {"description", device.description},
                           {"kind", device.kind},
                           {"preferred", device.preferred}};
  if (!device.driver.empty()) object["driver"] = device.driver;
  if (device.memory_bytes > 0) object["memory_bytes"] = device.memory_bytes;
  if (!device.refused.empty()) object["refused"] = device.refused;
  if (!device.capabilities.empty()) {
    object["capabilities"] = capabilities;
    object["quirks"] = device.quirks;
  }
  return object;
}

nlohmann::json json_of(const DeviceList& list) {
  nlohmann::json object = {{"devices", nlohmann::json::array()}};
  for (const ListedDevice& device : list.devices) object["devices"].push_back(json_of(device));
  if (!list.without_vulkan.empty()) object["without_vulkan"] = list.without_vulkan;
  return object;
}

int report_device(const DevicesArguments& options, const Streams& streams) {
#if FLUXION_WITH_AUTOGRAD
  nlohmann::json header = json_of(list_devices());
  const Device device = open_device(options, streams);
  header["fluxion"] = FLUXION_VERSION;
  header["chosen"] = {{"name", device_name(options)}, {"description", device.name()}};
  const nlohmann::json report =
      write_device_report(options.report, std::move(header), device, options.seconds, streams);
  if (options.json) {
    write_json(streams.out, report);
  } else {
    streams.out << printable(device.name()) << "\n";
    print_device_report(streams.out, report);
    streams.out << "report  " << options.report << std::endl;
  }
  return report.at("passed").get<bool>() ? 0 : 1;
#else
  (void)options, (void)streams;
  throw Error("devices: --report needs a build with automatic differentiation");
#endif
}

int devices(const DevicesArguments& options, const Streams& streams) {
  if (!options.report.empty()) return report_device(options, streams);
  const DeviceList list = list_devices();
  if (options.json) {
    write_json(streams.out, json_of(list));
    return 0;
  }
  for (const ListedDevice& device : list.devices) print_device(streams.out, device);
  if (!list.without_vulkan.empty())
    streams.out << "No Vulkan device: " << printable(list.without_vulkan, 1000) << "\n";
  streams.out << std::flush;
  return 0;
}

}  // namespace

Command add_devices(CommandLine& program, const Streams& streams) {
  auto options = std::make_shared<DevicesArguments>();
  const Parser parser = program.add_subcommand(
      "devices", "List where this machine can compute: processor, GPUs, their drivers");
  parser.footer(
      "Vulkan devices are numbered as in --device vulkan:N.\n\nExamples:\n  fluxion devices\n"
      "  fluxion devices --report report.json --device vulkan");
  const Option file =
      parser
          .add_option("--report", options->report,
                      "Test and measure the device of --device, and write what there is to know "
                      "of it to this file, for a bug report")
          .type_name("FILE");
  add_device(parser, *options);
  parser
      .add_number("--seconds", options->seconds, real(1, 86400), "About how long --report may take")
      .needs(file)
      .type_name("S")
      .show_default();
  add_json(parser, *options);
  return {parser, [options, &streams] { return devices(*options, streams); }};
}

}  // namespace fluxion::cli
