// Runs google-benchmark, then sets rates beside the rates that they are measured against: one line each, with
// what is asked. With --benchmark_repetitions the best repetition counts, of both.
#pragma once

#include <algorithm>
#include <benchmark/benchmark.h>
#include <cstdio>
#include <map>
#include <string>
#include <vector>

#include "tests/bench/machine.h"

namespace cumulus {

struct Ratio {
  const char* what;
  const char* ours;
  const char* limit;
  const char* limit_name;
  int asked;  // per cent; 0: nothing is
};

class RateKeeper : public benchmark::ConsoleReporter {
 public:
  using ConsoleReporter::ConsoleReporter;

  void ReportRuns(const std::vector<Run>& runs) override {
    for (const Run& run : runs) {
      const auto rate = run.counters.find("bytes_per_second");
      if (run.run_type == Run::RT_Aggregate || rate == run.counters.end()) continue;
      double& best = rates_[run.run_name.function_name + "/" + run.run_name.args];
      best = std::max(best, rate->second.value);
    }
    ConsoleReporter::ReportRuns(runs);
  }

  void print(const Ratio& ratio) const {
    const auto ours = rates_.find(ratio.ours);
    const auto limit = rates_.find(ratio.limit);
    if (ours == rates_.end() || limit == rates_.end()) return;  // left out by --benchmark_filter
    const double gib = 1 << 30;
    std::printf("%-32s %6.2f GiB/s, %4.0f %% of the %6.2f of %s", ratio.what, ours->second / gib,
                ours->second / limit->second * 100, limit->second / gib, ratio.limit_name);
    if (ratio.asked != 0) std::printf(" (asked: at least %d)", ratio.asked);
    std::printf("\n");
  }

 private:
  std::map<std::string, double> rates_;
};

inline int run_benchmarks(int argc, char** argv, const std::vector<Ratio>& ratios) {
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 2;
  print_machine();
  RateKeeper keeper(benchmark::ConsoleReporter::OO_Tabular);
  benchmark::RunSpecifiedBenchmarks(&keeper);
  for (const Ratio& ratio : ratios) keeper.print(ratio);
  return 0;
}

}  // namespace cumulus
