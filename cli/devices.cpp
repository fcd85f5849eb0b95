// `fluxion devices`: where this machine can compute.
#include <algorithm>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>

#include "backends/open_device.h"
#include "cli/command.h"

namespace fluxion::cli {

namespace {

struct DevicesArguments : CommonOptions {};

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

int devices(const DevicesArguments& options, const Streams& streams) {
  const DeviceList list = list_devices();
  if (options.json) {
    nlohmann::json object = {{"devices", nlohmann::json::array()}};
    for (const ListedDevice& device : list.devices) object["devices"].push_back(json_of(device));
    if (!list.without_vulkan.empty()) object["without_vulkan"] = list.without_vulkan;
    write_json(streams.out, object);
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
      "Vulkan devices are numbered as in --device vulkan:N.\n\nExample:\n  fluxion devices");
  add_json(parser, *options);
  return {parser, [options, &streams] { return devices(*options, streams); }};
}

}  // namespace fluxion::cli
