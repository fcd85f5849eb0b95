// What the importer knows of the public networks of one family.
#pragma once

#include <string>

#include "models/import/named_entries.h"

namespace fluxion {

struct PublicFamily {
  const char* name;         // in messages: "DiT"
  const char* first_time;   // weight of the linear map of the first time's features
  const char* second_time;  // prefix of the second time's embedder
  const char* class_table;  // a row a class, the last one the null class; where config() takes
                            // Fill::null_class
  const char* output;       // prefix of the last map, whose rows are the output's channels in turn;
                            // where config() takes data_at_one and drop_variance
  const char* sign;         // a key that only this family has
  bool usually_open;        // its public code also trains samples without their class
  // The configuration that the shapes, the options and `options.config` say. Adds notes to the
  // file. Throws Error.
  NetworkConfig (*config)(NamedEntries& file, const ImportOptions& options);
  std::string (*description)(const NetworkConfig& config);  // "DiT of hidden size 384 and depth 12"
};

const PublicFamily& public_dit();
const PublicFamily& public_unet();
const PublicFamily& public_song_unet();

}  // namespace fluxion
