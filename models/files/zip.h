// Zip archives, as far as .npz files need them (PKWARE's APPNOTE.TXT 6.3): stored and deflated
// members, ZIP64, data descriptors. The directory at the end says what there is; every local header
// must agree with it.
//
// An archive is data from strangers. Members that overlap, lie outside the file, or state sizes
// that no compression could reach are refused when it is opened, so that all members together hold
// at most 1032 times the bytes of the file; one of more than 16 GiB is refused, too.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace fluxion {

struct ZipMember {
  std::string name;  // as stored, with '/' between folders
  std::uint64_t size = 0;
  std::span<const std::byte> packed;  // within the archive
  std::uint16_t method = 0;           // 0: stored, 8: deflated; others can't be read
  std::uint32_t checksum = 0;         // CRC-32 of what it holds
  bool encrypted = false;
};

bool is_zip(std::span<const std::byte> bytes);

class ZipArchive {
 public:
  // Reads the directory. The bytes must outlive this object; `name` stands for them in messages.
  // Throws FormatError.
  explicit ZipArchive(std::span<const std::byte> bytes, std::string_view name = "zip data");

  // In the order of the directory, without folders.
  const std::vector<ZipMember>& members() const { return members_; }

  // What a member holds. `in_place` is possible where it is stored, method 0. Both check the
  // checksum. Throw FormatError for damage, and for members that are encrypted or compressed
  // otherwise.
  std::vector<std::byte> unpack(const ZipMember& member) const;
  std::span<const std::byte> in_place(const ZipMember& member) const;
  // At most its first `count` bytes, unchecked.
  std::vector<std::byte> prefix(const ZipMember& member, std::size_t count) const;

 private:
  std::string name_of(const ZipMember& member) const;
  void check_readable(const ZipMember& member) const;
  void check_sum(const ZipMember& member, std::span<const std::byte> content) const;

  std::string name_;
  std::vector<ZipMember> members_;
};

}  // namespace fluxion
