#include "tools/miner/scrubber.h"

#include "objectstore/base/log.h"

namespace cumulus {

Scrubber::Scrubber(Runtime& runtime, SliceStore& store, Metrics& metrics, std::uint64_t rate)
    : runtime_(runtime),
      store_(store),
      rate_(rate),
      turn_(runtime, 1),
      stop_(runtime),
      tasks_(runtime),
      scrubbed_slices_(metrics.counter("cumulus_miner_scrubbed_slices_total")),
      scrubbed_bytes_(metrics.counter("cumulus_miner_scrubbed_bytes_total")),
      rounds_(metrics.counter("cumulus_miner_scrub_rounds_total")) {}

void Scrubber::start() {
  if (rate_ != 0) tasks_.spawn(background());
}

Task<bool> Scrubber::pause(Duration time) {
  const TimePoint until = runtime_.now() + time;
  while (!closing_ && runtime_.now() < until) co_await stop_.wait_until(until);
  co_return !closing_;
}

Task<void> Scrubber::background() {
  for (;;) {
    const bool going_on = co_await pause(std::chrono::minutes(10));
    if (!going_on) co_return;
    const auto report = co_await run(rate_, nullptr);
    if (!report) {
      if (report.error().kind() == ErrorKind::closed) co_return;
      log_warn("scrub: {}", report.error().message());
    }
    const bool another = co_await pause(kRoundPause);
    if (!another) co_return;
  }
}

Task<Result<ScrubReport>> Scrubber::run(std::uint64_t rate, std::function<Task<void>(ScrubReport)> progress) {
  const Semaphore::Hold turn = co_await turn_.acquire();
  ScrubReport report;
  report.total_slices = store_.totals().slices;
  const TimePoint began = runtime_.now();
  TimePoint told = began;
  std::optional<SliceKey> after;
  for (;;) {
    CO_TRY(const auto page, co_await store_.page(after, 256));
    if (page.empty()) break;
    for (const auto& slice : page) {
      if (closing_) co_return fail(ErrorKind::closed, "the scrub was stopped");
      CO_TRY(const bool good, co_await store_.scrub(slice.key));
      ++report.slices;
      report.bytes += slice.location.length;
      report.bad += good ? 0 : 1;
      scrubbed_slices_.add();
      scrubbed_bytes_.add(slice.location.length);
      if (rate != 0) {
        const double due = static_cast<double>(report.bytes) / static_cast<double>(rate);
        const Duration ahead = std::chrono::duration_cast<Duration>(std::chrono::duration<double>(due)) -
                               (runtime_.now() - began);
        if (ahead > Duration::zero()) (void)co_await pause(ahead);
      }
      if (progress && runtime_.now() >= told + std::chrono::milliseconds(500)) {
        told = runtime_.now();
        co_await progress(report);
      }
    }
    after = page.back().key;
  }
  rounds_.add();
  if (report.bad != 0) log_warn("scrub: {} of {} slices are bad", report.bad, report.slices);
  co_return report;
}

Task<void> Scrubber::close() {
  closing_ = true;
  stop_.notify_all();
  co_await tasks_.join();
  (void)co_await turn_.acquire();
}

}  // namespace cumulus
