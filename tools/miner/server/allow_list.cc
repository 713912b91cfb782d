#include "tools/miner/server/allow_list.h"

#include <charconv>

#include "objectstore/base/format.h"

namespace cumulus {

Result<std::map<VolumeId, std::uint64_t>> AllowList::parse(std::string_view text) {
  std::map<VolumeId, std::uint64_t> quotas;
  for (std::size_t number = 1; !text.empty(); ++number) {
    const std::size_t end = std::min(text.find('\n'), text.size());
    std::string_view line = text.substr(0, end);
    text.remove_prefix(std::min(end + 1, text.size()));
    line = line.substr(0, line.find('#'));
    while (!line.empty() && (line.back() == ' ' || line.back() == '\t' || line.back() == '\r'))
      line.remove_suffix(1);
    if (line.empty()) continue;
    const auto bad = [&](std::string_view why) {
      return fail(ErrorKind::invalid, cumulus::format("line {}: {}; expected VOLUME-ID BYTES", number, why));
    };
    const std::size_t gap = line.find(' ');
    if (gap == std::string_view::npos) return bad("one word only");
    const auto volume = VolumeId::parse(line.substr(0, gap));
    if (!volume) return bad(volume.error().message());
    const std::string_view digits = line.substr(gap + 1);
    std::uint64_t quota = 0;
    const auto [stop, error] = std::from_chars(digits.data(), digits.data() + digits.size(), quota);
    if (error != std::errc() || stop != digits.data() + digits.size())
      return bad("the quota is not a number");
    quotas[*volume] = quota;
  }
  return quotas;
}

std::string AllowList::print(const std::map<VolumeId, std::uint64_t>& quotas) {
  std::string text = "# Volumes that may store here: VOLUME-ID BYTES. Written by `cumulus-miner allow`.\n";
  for (const auto& [volume, quota] : quotas) text += cumulus::format("{} {}\n", volume.hex(), quota);
  return text;
}

Task<Status> AllowList::reload() {
  CO_TRY(const bool there, files_.exists(path_));
  if (!there) {
    quotas_.clear();
    co_return Status();
  }
  CO_TRY(const Bytes bytes, co_await files_.read_file(path_, kFileMax));
  auto quotas = parse(text_of(bytes));
  if (!quotas) co_return fail(quotas.error().within(path_));
  quotas_ = *std::move(quotas);
  co_return Status();
}

}  // namespace cumulus
