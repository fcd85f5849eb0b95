// Text of pictures: escaping for XML and DOT, formatting of numbers, the width of words.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace fluxion::show {

// Escapes text for XML, between tags or in attributes: & < > " ' become entities. Drops characters
// that XML does not allow; bytes that are not UTF-8 become U+FFFD.
std::string xml_escaped(std::string_view text);

// Escapes text for a quoted DOT string: backslashes and quotes, line breaks as \n. Drops other
// control characters.
std::string dot_escaped(std::string_view text);

// With at most one digit behind the point, and none where it is 0: "12", "12.5".
std::string coordinate(double value);

// "640 B", "1.6 KiB", "20.3 MiB".
std::string bytes_text(std::uint64_t bytes);

// "1 node", "2 nodes".
std::string counted(std::size_t count, const std::string& noun);

// At most `most` bytes of `text`, ending in "..." where something was cut; never inside a UTF-8
// character.
std::string shortened(std::string_view text, std::size_t most);

// Words as lines of at most so many characters, with commas: "sub, exp," "row sum, div". The last
// of `most_lines` ends in "and 3 more" where words are left out.
std::vector<std::string> wrapped(const std::vector<std::string>& words, std::size_t characters,
                                 std::size_t most_lines);

// The width in pixels of `text` in a sans-serif font of this size. Generous, so that it fits in any
// viewer's font.
double text_width(std::string_view text, double size);

}  // namespace fluxion::show
