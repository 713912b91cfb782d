#include "objectstore/base/metrics.h"

namespace cumulus {

Counter& Metrics::counter(const std::string& name) {
  const MutexLock lock(mutex_);
  return counters_[name];
}

std::map<std::string, std::uint64_t> Metrics::snapshot() const {
  const MutexLock lock(mutex_);
  std::map<std::string, std::uint64_t> values;
  for (const auto& [name, counter] : counters_) values[name] = counter.value();
  return values;
}

std::string Metrics::prometheus_text() const {
  std::string text;
  std::string family;
  for (const auto& [name, value] : snapshot()) {
    const std::string base = name.substr(0, name.find('{'));
    if (base != family) {
      family = base;
      text += "# TYPE " + base + (base.ends_with("_total") ? " counter\n" : " gauge\n");
    }
    text += name + " " + std::to_string(value) + "\n";
  }
  return text;
}

}  // namespace cumulus
