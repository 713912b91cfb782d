#include "tools/miner/commands.h"

#include <algorithm>
#include <charconv>
#include <cstdio>
#include <nlohmann/json.hpp>
#include <unistd.h>

#include "objectstore/base/format.h"
#include "objectstore/crypto/tls_identity.h"
#include "tools/directory_turn.h"
#include "tools/error_line.h"
#include "tools/miner/miner.h"
#include "tools/sizes.h"

namespace cumulus::miner_commands {

namespace {

constexpr std::uint64_t kCapacityMin = 64u << 20;  // the largest slice

void print(std::string_view text) {
  std::fwrite(text.data(), 1, text.size(), stdout);
  std::fflush(stdout);
}

std::string toml_text(std::string_view text) {
  std::string quoted = "\"";
  for (const char letter : text) {
    if (letter == '"' || letter == '\\') quoted += '\\';
    quoted += letter;
  }
  return quoted + '"';
}

// The daemon's state when one runs, else the directory's own.
Task<Result<nlohmann::json>> state_of(Reactor& reactor, FileSystem& files, std::string path) {
  MinerDirectory directory(files, path);
  CO_TRY(const MinerConfig config, co_await directory.config());
  nlohmann::json state;
  const auto asked = co_await ask_daemon(reactor, path, "status", [&state](std::string_view line) {
    if (line.starts_with("status ")) state = nlohmann::json::parse(line.substr(7), nullptr, false);
  });
  if (asked && state.is_object()) co_return state;
  if (!asked && asked.error().kind() != ErrorKind::not_found) co_return fail(asked.error());
  CO_TRY(const auto lock, DirectoryLock::take(path));
  CO_TRY(const auto seed, co_await directory.identity_seed());
  Metrics metrics;
  CO_TRY(const auto store, co_await open_miner_store(reactor, files, directory, metrics));
  const StoreTotals totals = store->totals();
  co_await store->close();
  state["running"] = false;
  state["identity"] = to_hex(TlsIdentity::from_seed(seed).public_key());
  state["capacity"] = config.capacity;
  state["used"] = totals.used;
  state["live"] = totals.live;
  state["slices"] = totals.slices;
  state["volumes"] = totals.volumes;
  state["bundles"] = totals.bundles;
  state["draining"] = config.draining;
  co_return state;
}

class ScrubPrinter {
 public:
  void progress(const ScrubReport& report) {
    const unsigned percent =
        report.total_slices == 0 ? 100 : static_cast<unsigned>(100 * report.slices / report.total_slices);
    const std::string line =
        cumulus::format("scrub: {}% ({} of {} slices, {}), {} bad", std::min(percent, 100u), report.slices,
                        report.total_slices, format_size(report.bytes), report.bad);
    print(terminal_ ? "\r" + line : line + "\n");
    began_ = true;
  }
  int result(std::uint64_t slices, std::uint64_t bytes, std::uint64_t bad) const {
    print(cumulus::format("{}scrubbed {} slices, {}: {}\n", terminal_ && began_ ? "\n" : "", slices,
                          format_size(bytes), bad == 0 ? "all good" : std::to_string(bad) + " bad"));
    return bad == 0 ? kExitDone : kExitFailed;
  }

 private:
  bool terminal_ = ::isatty(STDOUT_FILENO) == 1;
  bool began_ = false;
};

std::vector<std::uint64_t> numbers_in(std::string_view line) {
  std::vector<std::uint64_t> numbers;
  const char* at = line.data();
  const char* const end = at + line.size();
  while (at != end) {
    std::uint64_t value = 0;
    const auto parsed = std::from_chars(at, end, value);
    if (parsed.ec == std::errc()) {
      numbers.push_back(value);
      at = parsed.ptr;
    } else {
      ++at;
    }
  }
  return numbers;
}

Task<Result<int>> scrub_offline(Reactor& reactor, FileSystem& files, std::string path,
                                ScrubPrinter& printer) {
  MinerDirectory directory(files, path);
  CO_TRY_OK(co_await directory.config());
  CO_TRY(const auto lock, DirectoryLock::take(path));
  Metrics metrics;
  CO_TRY(const auto store, co_await open_miner_store(reactor, files, directory, metrics));
  Scrubber scrubber(reactor, *store, metrics, 0);
  const auto report = co_await scrubber.run(0, [&printer](ScrubReport now) -> Task<void> {
    printer.progress(now);
    co_return;
  });
  co_await scrubber.close();
  co_await store->close();
  if (!report) co_return fail(report.error());
  co_return printer.result(report->slices, report->bytes, report->bad);
}

}  // namespace

Result<std::pair<std::string, std::uint16_t>> parse_endpoint(std::string_view text) {
  const auto bad = [&] {
    return fail(ErrorKind::invalid,
                "'" + std::string(text) + "' is not ADDR:PORT; write 127.0.0.1:7000 or [::1]:7000");
  };
  const std::size_t colon = text.rfind(':');
  if (colon == std::string_view::npos) return bad();
  std::string_view address = text.substr(0, colon);
  if (address.starts_with('[') && address.ends_with(']')) {
    address = address.substr(1, address.size() - 2);
  } else if (address.find(':') != std::string_view::npos) {
    return bad();
  }
  const std::string_view digits = text.substr(colon + 1);
  std::uint16_t port = 0;
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), port);
  if (address.empty() || error != std::errc() || end != digits.data() + digits.size()) return bad();
  return std::pair(std::string(address), port);
}

std::string miner_block(std::string_view address, const std::string& identity, std::string_view domain,
                        std::uint64_t capacity) {
  return cumulus::format(
      "[[miner]]\naddress = {}\nidentity = \"{}\"\ndomain = {}\ncapacity = \"{}\"\nweight = 1.0\n",
      toml_text(address), identity, toml_text(domain), exact_size(capacity));
}

Task<int> init(Reactor& reactor, FileSystem& files, Init arguments) {
  char host[256] = "localhost";
  (void)::gethostname(host, sizeof host - 1);
  if (!arguments.listen.empty()) {
    const auto endpoint = parse_endpoint(arguments.listen);
    if (!endpoint) {
      print_error(kProgram, endpoint.error());
      co_return kExitUsage;
    }
  }
  if (arguments.capacity < kCapacityMin) {
    print_error(kProgram, Error(ErrorKind::invalid,
                                cumulus::format("--capacity: {} is too little: a miner has at least {}",
                                                format_size(arguments.capacity), format_size(kCapacityMin))));
    co_return kExitUsage;
  }
  // It becomes a line of DIR/config.
  const auto is_control = [](unsigned char letter) { return letter < 0x20 || letter == 0x7f; };
  if (std::ranges::any_of(arguments.domain, is_control)) {
    print_error(kProgram, Error(ErrorKind::invalid, "--domain holds control characters"));
    co_return kExitUsage;
  }
  MinerConfig config;
  config.capacity = arguments.capacity;
  config.domain = arguments.domain.empty() ? std::string(host) : arguments.domain;
  reactor.random().fill(config.secret);
  MinerDirectory::Seed seed;
  reactor.random().fill(seed);
  MinerDirectory directory(files, arguments.directory);
  const cumulus::Status created = co_await directory.create(config, seed);
  if (!created) co_return print_error(kProgram, created.error());
  const std::string identity = to_hex(TlsIdentity::from_seed(seed).public_key());
  const std::string address = arguments.listen.empty() ? std::string(host) + ":7000" : arguments.listen;
  if (arguments.json) {
    const nlohmann::json block{{"address", address},
                               {"identity", identity},
                               {"domain", config.domain},
                               {"capacity", config.capacity},
                               {"weight", 1.0}};
    print(block.dump() + "\n");
    co_return kExitDone;
  }
  if (arguments.listen.empty())
    print(cumulus::format(
        "# The address is where clients reach `cumulus-miner run {} --listen 0.0.0.0:7000`.\n",
        arguments.directory));
  print(miner_block(address, identity, config.domain, config.capacity));
  co_return kExitDone;
}

Task<int> allow(Reactor& reactor, FileSystem& files, Allow arguments) {
  const auto volume = VolumeId::parse(arguments.volume);
  if (!volume) {
    print_error(kProgram, volume.error());
    co_return kExitUsage;
  }
  MinerDirectory directory(files, arguments.directory);
  const DirectoryTurn turn(arguments.directory);
  const auto config = co_await directory.config();
  if (!config) co_return print_error(kProgram, config.error());
  std::map<VolumeId, std::uint64_t> quotas;
  const auto there = files.exists(directory.allow_path());
  if (there && *there) {
    const auto bytes = co_await files.read_file(directory.allow_path(), AllowList::kFileMax);
    if (!bytes) co_return print_error(kProgram, bytes.error());
    auto parsed = AllowList::parse(text_of(*bytes));
    if (!parsed) co_return print_error(kProgram, parsed.error().within(directory.allow_path()));
    quotas = *std::move(parsed);
  }
  if (arguments.revoke) {
    quotas.erase(*volume);
  } else {
    quotas[*volume] = arguments.quota;
  }
  const std::string text = AllowList::print(quotas);
  const ByteView view = view_of(text);
  Bytes content(view.begin(), view.end());
  const cumulus::Status kept = co_await files.replace_file(directory.allow_path(), std::move(content));
  if (!kept) co_return print_error(kProgram, kept.error());
  const cumulus::Status told =
      co_await ask_daemon(reactor, arguments.directory, "reload", [](std::string_view) {});
  if (!told && told.error().kind() != ErrorKind::not_found) co_return print_error(kProgram, told.error());
  print(arguments.revoke ? cumulus::format("volume {} may store no more here\n", volume->brief())
                         : cumulus::format("volume {} may store {} here\n", volume->brief(),
                                           format_size(arguments.quota)));
  co_return kExitDone;
}

Task<int> status(Reactor& reactor, FileSystem& files, Status arguments) {
  const auto state = co_await state_of(reactor, files, arguments.directory);
  if (!state) co_return print_error(kProgram, state.error());
  if (arguments.json) {
    print(state->dump() + "\n");
    co_return kExitDone;
  }
  const auto number = [&](const char* key) { return state->value(key, std::uint64_t{0}); };
  const bool running = state->value("running", false);
  print(cumulus::format("{}{}{}\n",
                        running ? "running on " + state->value("listen", std::string()) : "not running",
                        state->value("draining", false) ? ", draining" : "",
                        state->value("read_only", false) ? ", READ-ONLY: its disk refuses writes" : ""));
  print(cumulus::format("identity  {}\n", state->value("identity", std::string())));
  print(cumulus::format("used      {} of {} ({} live)\n", format_size(number("used")),
                        format_size(number("capacity")), format_size(number("live"))));
  print(cumulus::format("slices    {} of {} volumes in {} bundles\n", number("slices"), number("volumes"),
                        number("bundles")));
  if (running)
    print(cumulus::format("clients   {}; rotten slices found since start: {}; scrub rounds: {}\n",
                          number("connections"), number("rotten_found"), number("scrub_rounds")));
  co_return kExitDone;
}

Task<int> scrub(Reactor& reactor, FileSystem& files, std::string directory) {
  ScrubPrinter printer;
  int code = kExitDone;
  const cumulus::Status asked =
      co_await ask_daemon(reactor, directory, "scrub", [&printer, &code](std::string_view line) {
        const auto numbers = numbers_in(line);
        if (line.starts_with("progress") && numbers.size() == 4) {
          ScrubReport report;
          report.slices = numbers[0];
          report.total_slices = numbers[1];
          report.bytes = numbers[2];
          report.bad = numbers[3];
          printer.progress(report);
        } else if (line.starts_with("done") && numbers.size() == 3) {
          code = printer.result(numbers[0], numbers[1], numbers[2]);
        }
      });
  if (asked) co_return code;
  if (asked.error().kind() != ErrorKind::not_found) co_return print_error(kProgram, asked.error());
  const auto offline = co_await scrub_offline(reactor, files, directory, printer);
  if (!offline) co_return print_error(kProgram, offline.error());
  co_return *offline;
}

Task<int> drain(Reactor& reactor, FileSystem& files, std::string path, bool undo) {
  MinerDirectory directory(files, path);
  const DirectoryTurn turn(path);
  auto config = co_await directory.config();
  if (!config) co_return print_error(kProgram, config.error());
  config->draining = !undo;
  const cumulus::Status kept = co_await directory.write_config(*config);
  if (!kept) co_return print_error(kProgram, kept.error());
  const cumulus::Status told = co_await ask_daemon(reactor, path, "reload", [](std::string_view) {});
  if (!told && told.error().kind() != ErrorKind::not_found) co_return print_error(kProgram, told.error());
  const auto state = co_await state_of(reactor, files, path);
  if (!state) co_return print_error(kProgram, state.error());
  print(cumulus::format("{}; {} slices of {} volumes remain, {}\n",
                        undo ? "takes new slices again" : "draining: takes no new slices",
                        state->value("slices", std::uint64_t{0}), state->value("volumes", std::uint64_t{0}),
                        format_size(state->value("live", std::uint64_t{0}))));
  if (!undo) print("Each volume moves its slices away with: cumulus miner drain VOLUME\n");
  co_return kExitDone;
}

}  // namespace cumulus::miner_commands
