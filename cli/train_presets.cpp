#include "cli/train_presets.h"

#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>

#include "engine/error.h"

namespace fluxion::cli {

namespace {

struct Preset {
  const char* name;
  const char* summary;
  const char* settings;
};

constexpr std::array presets = {
    Preset{"points", "eight Gaussians in the plane, one step a sample; some two minutes",
           R"({"data": "8gaussians"})"},
    Preset{"points-flow", "two moons with flow matching, many steps a sample; a minute",
           R"({"data": "moons", "method": "flow-matching", "steps": 3000, "schedule": "cosine"})"},
    Preset{"glyphs", "digits drawn by code, a class at a time; five minutes",
           R"({"data": "glyphs", "kappa": 0.5, "minutes": 5})"},
    Preset{"mnist", "MNIST; give its folder with --data; fifteen minutes",
           R"({"data": "mnist", "patch": 4, "depth": 6, "heads": 4, "kappa": 0.5, "minutes": 15})"},
    Preset{"images", "a folder of images of your own, at 32 x 32; give it with --data; an hour",
           R"({"data": "images", "image-size": 32, "patch": 4, "minutes": 60})"},
    Preset{"images-large", "the same with a larger network, for a GPU or for days",
           R"({"data": "images", "image-size": 32, "patch": 4, "width": 256, "depth": 8, "heads": 4,
               "lr": 0.0005, "ema": [0.999, 0.9999], "steps": 100000, "schedule": "cosine",
               "batch": "auto"})"},
};

}  // namespace

nlohmann::json preset_settings(const std::string& name) {
  const auto found = std::find_if(presets.begin(), presets.end(),
                                  [&](const Preset& preset) { return name == preset.name; });
  if (found == presets.end())
    throw Error("train: there is no preset '" + name + "'; there are " + preset_names());
  return nlohmann::json::parse(found->settings);
}

std::string preset_list() {
  std::size_t widest = 0;
  for (const Preset& preset : presets) widest = std::max(widest, std::string(preset.name).size());
  std::string text;
  for (const Preset& preset : presets) {
    const std::string name = preset.name;
    text += name + std::string(widest + 2 - name.size(), ' ') + preset.summary + "\n" +
            std::string(widest + 2, ' ');
    const nlohmann::json settings = nlohmann::json::parse(preset.settings);
    for (const auto& [key, value] : settings.items()) {
      std::string written = value.is_string() ? value.get<std::string>() : value.dump();
      if (value.is_array()) written = written.substr(1, written.size() - 2);
      text += "--" + key + " " + written + " ";
    }
    text.back() = '\n';
  }
  return text;
}

std::string preset_names() {
  std::string names;
  for (const Preset& preset : presets)
    names += (names.empty() ? "" : ", ") + std::string(preset.name);
  return names;
}

}  // namespace fluxion::cli
