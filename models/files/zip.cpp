#include "models/files/zip.h"

#include <zlib.h>

#include <algorithm>
#include <cstring>
#include <initializer_list>
#include <utility>

#include "engine/error.h"
#include "models/files/gz.h"

namespace fluxion {

namespace {

constexpr std::uint32_t local_signature = 0x04034b50, directory_signature = 0x02014b50,
                        end_signature = 0x06054b50, locator_signature = 0x07064b50,
                        end64_signature = 0x06064b50;
constexpr std::size_t local_size = 30, entry_size = 46, end_size = 22, locator_size = 20,
                      end64_size = 56;
constexpr std::size_t longest_comment = 65535;
constexpr std::uint16_t zip64_field = 1;
// In the place of numbers that only the ZIP64 field can hold.
constexpr std::uint16_t in_zip64_short = 0xFFFF;
constexpr std::uint32_t in_zip64 = 0xFFFFFFFF;
constexpr std::uint16_t encrypted_flag = 1, descriptor_flag = 8;
constexpr std::uint64_t largest_member = std::uint64_t{1} << 34;

// A piece of the archive, as little-endian numbers.
class Record {
 public:
  explicit Record(std::span<const std::byte> bytes) : bytes_(bytes) {}
  std::size_t size() const { return bytes_.size(); }
  std::uint16_t u16(std::size_t at) const { return number<std::uint16_t>(at); }
  std::uint32_t u32(std::size_t at) const { return number<std::uint32_t>(at); }
  std::uint64_t u64(std::size_t at) const { return number<std::uint64_t>(at); }
  std::string text(std::size_t at, std::size_t length) const {
    return {reinterpret_cast<const char*>(bytes_.data()) + at, length};
  }

 private:
  template <class T>
  T number(std::size_t at) const {
    T value;
    std::memcpy(&value, bytes_.data() + at, sizeof value);
    return value;
  }
  std::span<const std::byte> bytes_;
};

// A name from an archive, made fit for a message.
std::string quoted_name(const std::string& name) {
  std::string text;
  for (const char c : name.substr(0, 80))
    text += static_cast<unsigned char>(c) < 32 || c == 127 ? '?' : c;
  return text + (name.size() > 80 ? ".." : "");
}

std::string method_name(std::uint16_t method) {
  switch (method) {
    case 9:
      return "deflate64";
    case 12:
      return "bzip2";
    case 14:
      return "LZMA";
    case 93:
      return "Zstandard";
    case 95:
      return "XZ";
    case 99:
      return "AES encryption";
    default:
      return "unknown";
  }
}

struct Directory {
  std::uint64_t entries = 0, start = 0, size = 0;
};

// Reads the parts of an archive; what is wrong is told with its name.
class ZipReader {
 public:
  ZipReader(std::span<const std::byte> bytes, std::string_view name) : bytes_(bytes), name_(name) {}

  std::vector<ZipMember> read() const {
    const Directory directory = find_directory();
    std::vector<Placed> placed;
    std::uint64_t at = directory.start;
    const std::uint64_t end = directory.start + directory.size;
    for (std::uint64_t i = 0; i < directory.entries; ++i)
      placed.push_back(entry(at, end, directory.start));
    if (at != end) refuse("its directory has bytes behind its last entry");
    check_apart(placed);
    std::vector<ZipMember> members;
    for (Placed& one : placed)
      if (!one.member.name.ends_with('/')) members.push_back(std::move(one.member));
    return members;
  }

  [[noreturn]] void refuse(const std::string& what) const {
    throw FormatError(std::string(name_) + ": not a readable zip archive: " + what);
  }

 private:
  // A member, and the place that it takes in the file.
  struct Placed {
    ZipMember member;
    std::uint64_t start = 0, end = 0;
  };

  Record record(std::uint64_t start, std::uint64_t size) const {
    return Record(bytes_.subspan(start, size));
  }

  // The end record lies at the end of the file, but for a comment.
  Directory find_directory() const {
    if (bytes_.size() < end_size) refuse("it ends early: no directory at its end");
    const std::size_t last = bytes_.size() - end_size;
    const std::size_t first = last > longest_comment ? last - longest_comment : 0;
    for (std::size_t at = last + 1; at-- > first;) {
      const Record end = record(at, end_size);
      if (end.u32(0) != end_signature || end.u16(20) > last - at) continue;
      if (at >= locator_size && record(at - locator_size, 4).u32(0) == locator_signature)
        return directory64(at - locator_size);
      if (end.u16(4) != 0 || end.u16(6) != 0 || end.u16(8) != end.u16(10))
        refuse("it is one part of an archive of several");
      return checked({end.u16(10), end.u32(16), end.u32(12)}, at);
    }
    refuse("it ends early: no directory at its end");
  }

  Directory directory64(std::uint64_t locator) const {
    const std::uint64_t start = record(locator, locator_size).u64(8);
    if (locator < end64_size || start > locator - end64_size ||
        record(start, 4).u32(0) != end64_signature)
      refuse("its ZIP64 directory is not where it says");
    const Record end = record(start, end64_size);
    if (end.u32(16) != 0 || end.u32(20) != 0 || end.u64(24) != end.u64(32))
      refuse("it is one part of an archive of several");
    return checked({end.u64(32), end.u64(48), end.u64(40)}, start);
  }

  // `end`: where the directory must end.
  Directory checked(const Directory& directory, std::uint64_t end) const {
    if (directory.start > end || directory.size != end - directory.start)
      refuse("its directory is not where it says");
    if (directory.entries > directory.size / entry_size)
      refuse("its directory states " + std::to_string(directory.entries) +
             " members, more than it has room for");
    return directory;
  }

  // The entry at `at`, which moves on to the next.
  Placed entry(std::uint64_t& at, std::uint64_t end, std::uint64_t data_end) const {
    if (end - at < entry_size || record(at, 4).u32(0) != directory_signature)
      refuse("its directory is damaged");
    const Record fixed = record(at, entry_size);
    const std::uint64_t name_length = fixed.u16(28), extra_length = fixed.u16(30),
                        whole = entry_size + name_length + extra_length + fixed.u16(32);
    if (end - at < whole) refuse("its directory is damaged");
    Placed placed;
    ZipMember& member = placed.member;
    member.name = record(at + entry_size, name_length).text(0, name_length);
    member.method = fixed.u16(10);
    member.encrypted = (fixed.u16(8) & encrypted_flag) != 0;
    member.checksum = fixed.u32(16);
    std::uint64_t packed = fixed.u32(20);
    member.size = fixed.u32(24);
    placed.start = fixed.u32(42);
    const std::uint16_t disk = fixed.u16(34);
    if (disk != 0 && disk != in_zip64_short) refuse("it is one part of an archive of several");
    take_zip64(record(at + entry_size + name_length, extra_length),
               {&member.size, &packed, &placed.start}, member.name);
    at += whole;

    const std::string about = "member " + quoted_name(member.name) + ": ";
    if (placed.start > data_end || data_end - placed.start < local_size)
      refuse(about + "it lies outside the file");
    const Record local = record(placed.start, local_size);
    if (local.u32(0) != local_signature) refuse(about + "there is no member where it should lie");
    const std::uint64_t before = local_size + local.u16(26) + local.u16(28);
    if (data_end - placed.start < before || data_end - placed.start - before < packed)
      refuse(about + "it lies outside the file");
    const bool same_name =
        local.u16(26) == name_length &&
        record(placed.start + local_size, name_length).text(0, name_length) == member.name;
    const bool described = (local.u16(6) & descriptor_flag) != 0;
    const auto differs = [&](std::size_t place, std::uint64_t stated) {
      return !described && local.u32(place) != in_zip64 && local.u32(place) != stated;
    };
    if (!same_name || local.u16(8) != member.method || differs(14, member.checksum) ||
        differs(18, packed) || differs(22, member.size))
      refuse(about + "its header and the directory disagree");
    placed.end = placed.start + before + packed;
    member.packed = bytes_.subspan(placed.start + before, packed);

    if (member.size > largest_member)
      refuse(about + std::to_string(member.size) + " bytes (at most 16 GiB)");
    if (member.method == 0 && !member.encrypted && packed != member.size)
      refuse(about + "it is stored, but its two sizes differ");
    if (member.size / largest_expansion > packed)
      refuse(about + std::to_string(packed) + " bytes can't hold the " +
             std::to_string(member.size) + " stated");
    return placed;
  }

  // Numbers that the entry marks as too large for it follow one another in the ZIP64 field.
  void take_zip64(const Record& extra, std::initializer_list<std::uint64_t*> numbers,
                  const std::string& member) const {
    if (std::none_of(numbers.begin(), numbers.end(),
                     [](const std::uint64_t* number) { return *number == in_zip64; }))
      return;
    for (std::size_t at = 0; at + 4 <= extra.size();) {
      const std::size_t length = extra.u16(at + 2);
      if (extra.size() - at - 4 < length) break;
      if (extra.u16(at) != zip64_field) {
        at += 4 + length;
        continue;
      }
      std::size_t from = at + 4;
      for (std::uint64_t* number : numbers) {
        if (*number != in_zip64) continue;
        if (at + 4 + length - from < 8) break;
        *number = extra.u64(from);
        from += 8;
      }
      return;
    }
    refuse("member " + quoted_name(member) + ": it lacks its ZIP64 sizes");
  }

  void check_apart(const std::vector<Placed>& placed) const {
    std::vector<const Placed*> order;
    for (const Placed& one : placed) order.push_back(&one);
    std::sort(order.begin(), order.end(),
              [](const Placed* a, const Placed* b) { return a->start < b->start; });
    for (std::size_t i = 1; i < order.size(); ++i)
      if (order[i]->start < order[i - 1]->end)
        refuse("members " + quoted_name(order[i - 1]->member.name) + " and " +
               quoted_name(order[i]->member.name) + " overlap");
    std::sort(order.begin(), order.end(),
              [](const Placed* a, const Placed* b) { return a->member.name < b->member.name; });
    for (std::size_t i = 1; i < order.size(); ++i)
      if (order[i]->member.name == order[i - 1]->member.name)
        refuse("two members are named " + quoted_name(order[i]->member.name));
  }

  std::span<const std::byte> bytes_;
  std::string_view name_;
};

}  // namespace

bool is_zip(std::span<const std::byte> bytes) {
  if (bytes.size() < 4) return false;
  const std::uint32_t signature = Record(bytes).u32(0);
  return signature == local_signature || signature == end_signature;
}

ZipArchive::ZipArchive(std::span<const std::byte> bytes, std::string_view name)
    : name_(name), members_(ZipReader(bytes, name).read()) {}

std::string ZipArchive::name_of(const ZipMember& member) const {
  return name_ + ", member " + quoted_name(member.name);
}

void ZipArchive::check_readable(const ZipMember& member) const {
  if (member.encrypted) throw FormatError(name_of(member) + ": it is encrypted");
  if (member.method != 0 && member.method != 8)
    throw FormatError(name_of(member) + ": compression method " + std::to_string(member.method) +
                      " (" + method_name(member.method) +
                      "); stored and deflated members are read, as np.savez and "
                      "np.savez_compressed write them");
}

void ZipArchive::check_sum(const ZipMember& member, std::span<const std::byte> content) const {
  const auto sum = ::crc32_z(0, reinterpret_cast<const Bytef*>(content.data()), content.size());
  if (sum != member.checksum)
    throw FormatError(name_of(member) + ": it is damaged: its checksum (CRC-32) is another");
}

std::vector<std::byte> ZipArchive::unpack(const ZipMember& member) const {
  check_readable(member);
  std::vector<std::byte> result =
      member.method == 0 ? std::vector<std::byte>(member.packed.begin(), member.packed.end())
                         : inflate_raw(member.packed, member.size, name_of(member));
  check_sum(member, result);
  return result;
}

std::span<const std::byte> ZipArchive::in_place(const ZipMember& member) const {
  check_readable(member);
  if (member.method != 0) throw Error(name_of(member) + ": it is compressed");
  check_sum(member, member.packed);
  return member.packed;
}

std::vector<std::byte> ZipArchive::prefix(const ZipMember& member, std::size_t count) const {
  check_readable(member);
  if (member.method != 0) return inflate_raw_prefix(member.packed, count, name_of(member));
  const auto first = member.packed.first(std::min(count, member.packed.size()));
  return {first.begin(), first.end()};
}

}  // namespace fluxion
