#include "tools/sizes.h"

#include <charconv>
#include <cmath>

#include "objectstore/base/format.h"

namespace cumulus {
namespace {
constexpr std::string_view kUnits = "KMGTPE";
}

Result<std::uint64_t> parse_size(std::string_view text) {
  const auto bad = [&](std::string_view why) {
    return fail(ErrorKind::invalid, "'" + std::string(text.substr(0, 40)) + "' is not a size (" +
                                        std::string(why) + "); write 4K, 10M, 1G or 2T");
  };
  std::uint64_t whole = 0;
  auto [at, error] = std::from_chars(text.data(), text.data() + text.size(), whole);
  const char* const end = text.data() + text.size();
  if (error == std::errc::result_out_of_range) return bad("too large");
  if (error != std::errc()) return bad("it does not begin with a number");
  double fraction = 0;
  if (at != end && *at == '.') {
    double scale = 0.1;
    for (++at; at != end && *at >= '0' && *at <= '9'; ++at, scale /= 10) fraction += scale * (*at - '0');
  }
  std::string unit(at, end);
  for (char& letter : unit)
    letter = static_cast<char>(letter >= 'a' && letter <= 'z' ? letter - 'a' + 'A' : letter);
  if (unit.ends_with("IB")) {
    unit.resize(unit.size() - 2);
  } else if (unit.ends_with("B")) {
    unit.resize(unit.size() - 1);
  }
  unsigned shift = 0;
  if (!unit.empty()) {
    const auto found = kUnits.find(unit[0]);
    if (unit.size() != 1 || found == std::string_view::npos) return bad("unknown unit");
    shift = 10 * (static_cast<unsigned>(found) + 1);
  } else if (fraction != 0) {
    return bad("a fraction of a byte");
  }
  if (whole > (std::uint64_t{1} << 63) >> shift) return bad("too large");
  return (whole << shift) + static_cast<std::uint64_t>(std::ldexp(fraction, static_cast<int>(shift)));
}

std::string format_size(std::uint64_t bytes) {
  if (bytes < 1024) return cumulus::format("{} B", bytes);
  double value = static_cast<double>(bytes) / 1024;
  std::size_t unit = 0;
  for (; value >= 1024 && unit + 1 < kUnits.size(); ++unit) value /= 1024;
  return cumulus::format("{:.1f} {}iB", value, kUnits[unit]);
}

std::string exact_size(std::uint64_t bytes) {
  std::size_t unit = 0;
  std::uint64_t value = bytes;
  for (; value != 0 && value % 1024 == 0 && unit < 4; ++unit) value /= 1024;
  return std::to_string(value) + (unit == 0 ? "" : std::string(1, kUnits[unit - 1]));
}

}  // namespace cumulus
