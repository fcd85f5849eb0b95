// The page of `fluxion zoo`: every method beside the others, in one HTML file that needs nothing
// else.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "models/images/image.h"

namespace fluxion::cli {

// Samples drawn in so many steps.
struct ZooDraw {
  std::int64_t steps = 0;
  double evaluations = 0;                      // of the network, for a sample
  std::map<std::string, double> metrics = {};  // by name
  std::string picture = {};                    // of the samples, as a data: address
};

struct ZooEntry {
  std::string name = {}, summary = {}, paper = {};
  std::string failure = {};  // why there is no model; "": there is one
  std::string teacher = {};  // the entry that it learned from
  std::string prediction = {}, sampler = {};
  std::int64_t usual_steps = 0;  // of that sampler
  std::int64_t steps = 0;        // of training
  double seconds = 0;
  std::vector<ZooDraw> draws = {};
  std::string ways = {}, field = {};  // pictures, as data: addresses
};

struct ZooPage {
  std::string data = {}, network = {}, device = {}, command = {};
  std::int64_t parameters = 0, count = 0;
  double minutes = 0;  // of training a method; 0: `steps` instead
  std::int64_t steps = 0;
  bool seen = false;                      // the methods are trained on what they are compared with
  std::vector<std::string> metrics = {};  // in their order
  std::map<std::string, double> floor = {};  // of each metric: what as many real samples get
  std::string real = {};                     // picture of real samples, as a data: address
  std::vector<ZooEntry> entries = {};
};

std::string zoo_html(const ZooPage& page);

// "data:image/png;base64,..".
std::string data_address(const Image& image);
// Arrows of a vector field over a square, as a data: address of an SVG picture. at, direction: [n,
// 2].
std::string arrows_address(const std::vector<float>& at, const std::vector<float>& direction,
                           double reach);

}  // namespace fluxion::cli
