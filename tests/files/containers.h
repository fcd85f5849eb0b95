// Files byte by byte, as other programs write them and as none should: .npy, IDX, gzip, zip.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

#include "engine/export/crc32.h"
#include "models/files/gz.h"

namespace fluxion::testing {

using Bytes = std::vector<std::byte>;

inline void append(Bytes& to, const Bytes& more) { to.insert(to.end(), more.begin(), more.end()); }
inline void append_text(Bytes& to, const std::string& text) {
  for (const char c : text) to.push_back(static_cast<std::byte>(c));
}
// The lowest bytes of a number, the lowest first.
inline void append_little(Bytes& to, std::uint64_t value, int bytes) {
  for (int i = 0; i < bytes; ++i) to.push_back(static_cast<std::byte>(value >> (8 * i)));
}
inline void append_big(Bytes& to, std::uint64_t value, int bytes) {
  for (int i = bytes - 1; i >= 0; --i) to.push_back(static_cast<std::byte>(value >> (8 * i)));
}

// A .npy file of this header dictionary, in version 1.0, 2.0 or 3.0 of the format.
inline Bytes npy_file(const std::string& dictionary, const Bytes& data, int version = 1) {
  std::string header = dictionary;
  const std::size_t start = version == 1 ? 10 : 12;
  while ((start + header.size() + 1) % 64 != 0) header += ' ';
  header += '\n';
  Bytes file;
  append_text(file, "\x93NUMPY");
  append_little(file, static_cast<std::uint64_t>(version), 1);
  append_little(file, 0, 1);
  append_little(file, header.size(), version == 1 ? 2 : 4);
  append_text(file, header);
  append(file, data);
  return file;
}
inline Bytes npy_file(const std::string& descr, bool column_major, const std::string& shape,
                      const Bytes& data, int version = 1) {
  return npy_file("{'descr': " + descr + ", 'fortran_order': " + (column_major ? "True" : "False") +
                      ", 'shape': " + shape + ", }",
                  data, version);
}

inline Bytes idx_file(int type, const std::vector<std::uint32_t>& sizes, const Bytes& data) {
  Bytes file;
  append_big(file, 0, 2);
  append_big(file, static_cast<std::uint64_t>(type), 1);
  append_big(file, sizes.size(), 1);
  for (const std::uint32_t size : sizes) append_big(file, size, 4);
  append(file, data);
  return file;
}

// Deflated, without a header: gzip's own has 10 bytes, and 8 behind.
inline Bytes deflated(const Bytes& content) {
  const Bytes member = gzip(content);
  return {member.begin() + 10, member.end() - 8};
}

// One gzip member (RFC 1952) with the fields that its flags name.
struct GzipMember {
  Bytes content;
  bool text = false, extra = false, name = false, comment = false, header_checksum = false;
  int method = 8, reserved = 0;
  std::uint32_t wrong_checksum = 0, wrong_size = 0, wrong_header = 0;  // added to the right ones

  Bytes bytes() const {
    Bytes file;
    append_big(file, 0x1f8b, 2);
    append_little(file, static_cast<std::uint64_t>(method), 1);
    append_little(file,
                  static_cast<std::uint64_t>(reserved) | (text ? 1u : 0) |
                      (header_checksum ? 2u : 0) | (extra ? 4u : 0) | (name ? 8u : 0) |
                      (comment ? 16u : 0),
                  1);
    append_little(file, 0x5eadbeef, 4);  // time
    append_little(file, 0x0302, 2);      // compression, system
    if (extra) {
      append_little(file, 6, 2);
      append_text(file, std::string("AB\x02\0xy", 6));
    }
    if (name) append_text(file, std::string("images\0", 7));
    if (comment) append_text(file, std::string("a comment\0", 10));
    if (header_checksum) append_little(file, (crc32(file) + wrong_header) & 0xFFFF, 2);
    append(file, deflated(content));
    append_little(file, crc32(content) + wrong_checksum, 4);
    append_little(file, content.size() + wrong_size, 4);
    return file;
  }
};

// A zip archive, member by member.
struct ZipMemberPlan {
  std::string name;
  Bytes content;
  bool deflate = false, descriptor = false, zip64 = false, encrypted = false;
  int method = -1;               // another than that says
  std::uint64_t wrong_size = 0;  // added to the size in the directory
  std::uint32_t wrong_checksum = 0, wrong_local_size = 0;
  std::string local_name = {};  // another than the directory's
};

struct ZipPlan {
  std::vector<ZipMemberPlan> members;
  bool zip64 = false;  // a ZIP64 directory
  std::string comment = {};
  bool overlap = false;  // the second member is the first one again
  std::uint64_t wrong_members = 0, wrong_start = 0;

  Bytes bytes() const {
    Bytes file, directory;
    std::uint64_t first_start = 0;
    for (std::size_t i = 0; i < members.size(); ++i) {
      const ZipMemberPlan& member = members[i];
      const std::uint64_t start = overlap && i > 0 ? first_start : file.size();
      if (i == 0) first_start = start;
      const Bytes packed = member.deflate ? deflated(member.content) : member.content;
      const std::uint64_t method = member.method >= 0 ? static_cast<std::uint64_t>(member.method)
                                   : member.deflate   ? 8
                                                      : 0;
      const std::uint64_t flags = (member.descriptor ? 8u : 0) | (member.encrypted ? 1u : 0);
      const std::uint32_t checksum = crc32(member.content) + member.wrong_checksum;
      const std::uint64_t size = member.content.size() + member.wrong_size;
      const auto common = [&](Bytes& to, bool local) {
        append_little(to, 45, 2);
        append_little(to, flags, 2);
        append_little(to, method, 2);
        append_little(to, 0x7a5c5a5a, 4);  // time and date
        const bool later = local && member.descriptor;
        append_little(to, later ? 0 : checksum, 4);
        append_little(to, member.zip64 ? 0xFFFFFFFF : later ? 0 : packed.size(), 4);
        append_little(to,
                      member.zip64 ? 0xFFFFFFFF
                      : later      ? 0
                                   : size + (local ? member.wrong_local_size : 0),
                      4);
        append_little(to, member.name.size(), 2);
        append_little(to, member.zip64 ? 20 : 0, 2);
      };
      const auto sizes64 = [&](Bytes& to) {
        if (!member.zip64) return;
        append_little(to, 1, 2);
        append_little(to, 16, 2);
        append_little(to, size, 8);
        append_little(to, packed.size(), 8);
      };
      if (!(overlap && i > 0)) {
        append_little(file, 0x04034b50, 4);
        common(file, true);
        append_text(file, member.local_name.empty() ? member.name : member.local_name);
        sizes64(file);
        append(file, packed);
        if (member.descriptor) {
          append_little(file, 0x08074b50, 4);
          append_little(file, checksum, 4);
          append_little(file, packed.size(), 4);
          append_little(file, size, 4);
        }
      }
      append_little(directory, 0x02014b50, 4);
      append_little(directory, 45, 2);
      common(directory, false);
      append_little(directory, 0, 2);  // comment
      append_little(directory, 0, 2);  // disk
      append_little(directory, 0, 6);  // attributes
      append_little(directory, start, 4);
      append_text(directory, member.name);
      sizes64(directory);
    }
    const std::uint64_t start = file.size(), count = members.size() + wrong_members;
    append(file, directory);
    if (zip64) {
      const std::uint64_t record = file.size();
      append_little(file, 0x06064b50, 4);
      append_little(file, 44, 8);
      append_little(file, 45, 2);
      append_little(file, 45, 2);
      append_little(file, 0, 8);  // disks
      append_little(file, count, 8);
      append_little(file, count, 8);
      append_little(file, directory.size(), 8);
      append_little(file, start + wrong_start, 8);
      append_little(file, 0x07064b50, 4);
      append_little(file, 0, 4);
      append_little(file, record, 8);
      append_little(file, 1, 4);
    }
    append_little(file, 0x06054b50, 4);
    append_little(file, 0, 4);  // disks
    append_little(file, zip64 ? 0xFFFF : count, 2);
    append_little(file, zip64 ? 0xFFFF : count, 2);
    append_little(file, zip64 ? 0xFFFFFFFF : directory.size(), 4);
    append_little(file, zip64 ? 0xFFFFFFFF : start + wrong_start, 4);
    append_little(file, comment.size(), 2);
    append_text(file, comment);
    return file;
  }
};

}  // namespace fluxion::testing
