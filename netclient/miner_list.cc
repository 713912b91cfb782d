#include "netclient/miner_list.h"

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cmath>
#include <fstream>
#include <optional>
#include <set>
#include <sstream>

#include "netclient/address.h"
#include "objectstore/base/format.h"

// toml++ 3.3 asserts, instead of reporting an error, on some text that is not TOML ("[[!", "x = [}"), and
// with NDEBUG goes on as if it were. A typing error must not end the program: in every build these assertions
// are exceptions.
namespace cumulus {
namespace {
struct NotToml {};
[[noreturn]] void not_toml() { throw NotToml(); }
}  // namespace
}  // namespace cumulus
#define TOML_ASSERT(condition) ((condition) ? static_cast<void>(0) : ::cumulus::not_toml())
#pragma push_macro("NDEBUG")
#undef NDEBUG
#include <toml++/toml.h>
#pragma pop_macro("NDEBUG")

namespace cumulus {
namespace {

constexpr std::size_t kListBytesMax = 1024 * 1024;
constexpr std::size_t kMinersMax = 4096;
constexpr std::size_t kDomainMax = 253;  // the longest host name: it is the domain of who names none
constexpr std::uint64_t kCapacityMax = INT64_MAX;  // TOML's integers go so far: what is printed is read again

// Errors begin with the file and the line, as a compiler's do.
struct Origin {
  std::string_view name;
  Error at(const toml::source_region& where, std::string_view what) const {
    return {ErrorKind::invalid, format("{}:{}: {}", name, where.begin.line, what)};
  }
};

bool is_printable(char c) { return c >= ' ' && c <= '~'; }

Result<std::string> text_field(const toml::table& table, std::string_view key, const Origin& origin,
                               bool required) {
  const toml::node* node = table.get(key);
  if (node == nullptr) {
    if (!required) return std::string();
    return fail(origin.at(table.source(), format("this miner has no '{}'", key)));
  }
  const auto value = node->value_exact<std::string>();
  if (!value || !std::ranges::all_of(*value, is_printable) ||
      node->source().begin.line != node->source().end.line)
    return fail(
        origin.at(node->source(), format("'{}' must be a text in quotes, plain ASCII in one line", key)));
  return *value;
}

Result<std::uint64_t> capacity_field(const toml::table& table, const Origin& origin) {
  const toml::node* node = table.get("capacity");
  if (node == nullptr) return std::uint64_t{0};
  if (const auto number = node->value_exact<std::int64_t>(); number && *number >= 0)
    return static_cast<std::uint64_t>(*number);
  if (const auto text = node->value_exact<std::string>()) {
    if (const auto size = parse_capacity(*text)) return *size;
  }
  return fail(origin.at(node->source(), "'capacity' must be a size like \"100G\" or a number of bytes"));
}

Result<double> weight_field(const toml::table& table, const Origin& origin) {
  const toml::node* node = table.get("weight");
  if (node == nullptr) return 1.0;
  const auto value = node->value<double>();
  if (!value || !std::isfinite(*value) || *value < 0 || *value > 1e6)
    return fail(origin.at(node->source(), "'weight' must be a number from 0 to 1000000"));
  return *value;
}

Status check_keys(const toml::table& table, const Origin& origin) {
  for (const auto& [key, node] : table) {
    const std::string_view name = key.str();
    if (name != "address" && name != "identity" && name != "domain" && name != "capacity" && name != "weight")
      return fail(
          origin.at(key.source(), format("'{}' is not known here; a miner has address, identity, domain, "
                                         "capacity and weight",
                                         name)));
  }
  return {};
}

Result<MinerEntry> entry_of(const toml::table& table, const Origin& origin) {
  TRY_OK(check_keys(table, origin));
  MinerEntry entry;
  TRY(entry.address, text_field(table, "address", origin, true));
  const auto address = parse_host_port(entry.address);
  if (!address) return fail(origin.at(table.get("address")->source(), address.error().message()));
  TRY(const std::string identity, text_field(table, "identity", origin, true));
  const auto id = MinerId::parse(identity);
  if (!id) return fail(origin.at(table.get("identity")->source(), id.error().message()));
  entry.id = *id;
  TRY(entry.domain, text_field(table, "domain", origin, false));
  if (entry.domain.size() > kDomainMax) return fail(origin.at(table.source(), "'domain' is too long"));
  if (entry.domain.empty()) entry.domain = address->host;
  TRY(entry.capacity, capacity_field(table, origin));
  TRY(entry.weight, weight_field(table, origin));
  return entry;
}

// The lines of a text, with what ends them.
std::vector<std::string_view> lines_of(std::string_view text) {
  std::vector<std::string_view> lines;
  while (!text.empty()) {
    lines.push_back(text.substr(0, std::min(text.find('\n'), text.size() - 1) + 1));
    text.remove_prefix(lines.back().size());
  }
  return lines;
}

// toml++ 3.3 runs into undefined behaviour on letters beyond ASCII where a name may stand. It is shown none:
// lines that begin with '#' are empty in what this returns, others must have none. Texts in quotes that go
// over several lines are refused (text_field()), so that none loses anything.
Result<std::string> plain_text(std::string_view text, const Origin& origin) {
  const auto plain = [](char c) { return is_printable(c) || c == '\t' || c == '\r' || c == '\n'; };
  std::string result;
  toml::source_region where;
  where.begin.line = 1;
  for (const std::string_view line : lines_of(text)) {
    const std::size_t first = line.find_first_not_of(" \t");
    const bool comment = first != std::string_view::npos && line[first] == '#';
    if (!comment && !std::ranges::all_of(line, plain))
      return fail(origin.at(where, "only plain ASCII is allowed here, except in lines that begin with '#'"));
    result += comment ? "\n" : line;
    ++where.begin.line;
  }
  return result;
}

// What toml++ says, as an exception, goes no further than this. Nullopt: an assertion, which does not say
// where.
std::optional<Result<toml::table>> parse_toml(std::string_view text, const Origin& origin) {
  try {
    return toml::parse(text, origin.name);
  } catch (const toml::parse_error& error) {
    return fail(origin.at(error.source(), error.description()));
  } catch (const NotToml&) {
    return std::nullopt;
  }
}

Result<toml::table> parse(std::string_view text, const Origin& origin) {
  if (auto parsed = parse_toml(text, origin)) return *std::move(parsed);
  // Texts that end ahead of the place raise no assertion, all others do.
  const std::vector<std::string_view> lines = lines_of(text);
  const auto passes = [&](std::string_view line) {
    const auto length = static_cast<std::size_t>(line.data() + line.size() - text.data());
    return parse_toml(text.substr(0, length), origin).has_value();
  };
  const auto place = std::ranges::partition_point(lines, passes);
  toml::source_region where;
  where.begin.line = static_cast<toml::source_index>(place - lines.begin() + 1);
  return fail(origin.at(where, "this is not TOML: a name or a value is expected"));
}

std::string quoted(std::string_view text) {
  std::ostringstream out;
  out << toml::value<std::string>(std::string(text));
  return out.str();
}

}  // namespace

Result<std::uint64_t> parse_capacity(std::string_view text) {
  const auto bad = [&] {
    return fail(ErrorKind::invalid, format("'{}' is not a size like 512M, 100G or 2T", text.substr(0, 80)));
  };
  std::uint64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc()) return bad();
  const std::string_view unit = text.substr(static_cast<std::size_t>(end - text.data()));
  unsigned shift = 0;
  if (!unit.empty()) {
    constexpr std::string_view kUnits = "KMGTP";
    const std::size_t at = kUnits.find(unit.front());
    if (at == std::string_view::npos || (unit.size() > 1 && unit.substr(1) != "iB" && unit.substr(1) != "B"))
      return bad();
    shift = 10 * (static_cast<unsigned>(at) + 1);
  }
  if (value > (kCapacityMax >> shift)) return bad();
  return value << shift;
}

Result<std::vector<MinerEntry>> parse_miner_list(std::string_view text, std::string_view origin_name) {
  const Origin origin{origin_name};
  if (text.size() > kListBytesMax)
    return fail(ErrorKind::invalid, format("{}: too long for a miner list", origin_name));
  TRY(const std::string plain, plain_text(text, origin));
  TRY(const toml::table root, parse(plain, origin));
  for (const auto& [key, node] : root)
    if (key.str() != "miner")
      return fail(
          origin.at(key.source(), format("'{}' is not known here; write [[miner]] tables", key.str())));
  const toml::array* miners = root.get_as<toml::array>("miner");
  if (miners == nullptr || miners->empty())
    return fail(ErrorKind::invalid, format("{}: no [[miner]] in it", origin_name));
  if (miners->size() > kMinersMax)
    return fail(ErrorKind::invalid, format("{}: too many miners", origin_name));
  std::vector<MinerEntry> entries;
  std::set<MinerId> seen;
  for (const toml::node& node : *miners) {
    const toml::table* table = node.as_table();
    if (table == nullptr) return fail(origin.at(node.source(), "write each miner as a [[miner]] table"));
    TRY(MinerEntry entry, entry_of(*table, origin));
    if (!seen.insert(entry.id).second)
      return fail(origin.at(table->source(), format("miner {} is listed twice", entry.id.brief())));
    entries.push_back(std::move(entry));
  }
  return entries;
}

std::string print_miner_list(const std::vector<MinerEntry>& miners) {
  std::string text;
  for (const MinerEntry& miner : miners) {
    text += format("{}[[miner]]\naddress = {}\nidentity = {}\ndomain = {}\n", text.empty() ? "" : "\n",
                   quoted(miner.address), quoted(miner.id.hex()), quoted(miner.domain));
    if (miner.capacity != 0) text += format("capacity = {}\n", miner.capacity);
    if (miner.weight != 1.0) text += format("weight = {:#}\n", miner.weight);
  }
  return text;
}

Result<std::vector<MinerEntry>> load_miner_list(const std::string& path) {
  errno = 0;
  std::ifstream file(path, std::ios::binary);
  if (!file) return fail(from_errno(errno != 0 ? errno : ENOENT, "read " + path));
  std::string text(kListBytesMax + 1, '\0');
  file.read(text.data(), static_cast<std::streamsize>(text.size()));
  if (file.bad()) return fail(from_errno(errno != 0 ? errno : EIO, "read " + path));
  text.resize(static_cast<std::size_t>(file.gcount()));
  return parse_miner_list(text, path);
}

}  // namespace cumulus
