// Every experiment's books, kept while the server runs.
#pragma once

#include <cstdint>
#include <deque>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "absl/status/statusor.h"
#include "server/base/clock.h"
#include "server/experiments/ledger/book.h"

namespace penstock {

// The user's own measure of a request or of a unit.
struct Outcome {
  std::string_view tenant;
  std::string_view request_id;        // or
  std::string_view session_id, user;  // one of them, the experiment's unit kind
  std::string_view name;
  double value = 0;
  std::string_view idempotency_key;  // a second report under it counts nothing; empty: none
};

// What an experiment's requests are assigned by now.
struct RunningAnalysis {
  std::string experiment, revision;
  std::int64_t period = 1;
};

struct OutcomeReceipt {
  std::vector<std::string> experiments;  // that it was joined to
  bool repeated = false;                 // under a key that has been seen
};

// Thread-safe. No call holds the lock for longer than some tens of microseconds, but when the
// 200,001st unit comes: the subsample is halved once then, in some tens of milliseconds.
class Ledger {
 public:
  struct Options {
    const Clock* clock = &Clock::Real();  // outlives the ledger
    // Requests, and idempotency keys, that outcomes are still joined to or held against: the
    // latest.
    std::size_t max_remembered = 200'000;
    MeasureRouting measure = {};  // of the routers of slices, under `switchback`; null: none
  };

  explicit Ledger(Options options) : options_(std::move(options)) {}

  // The experiments that run now. Revision and period come with the requests, and another one
  // starts another book; so does another unit window, slice or outcome: what was measured by one
  // rule is not mixed with what is measured by another. Books of experiments that are gone are
  // dropped.
  void SetPlans(std::vector<AnalysisPlan> plans);

  // Opens the books that requests of now will count in, where there are none yet: a report before
  // the first request is one of this analysis, not of the one before. Experiments that SetPlans did
  // not name are ignored.
  void OpenBooks(const std::vector<RunningAnalysis>& running);

  void OnAdmitted(const ExposedRequest& request);
  void OnFinished(const ExposedRequest& request, const RequestMeasures& measures);
  void OnRouters(const std::vector<RouterLook>& looks);
  void OnPaired(const ExposedRequest& request, std::string_view arm, const PairedSums& sums);
  void OnTextEnded(const ExposedRequest& request, std::optional<std::int64_t> scored);

  // INVALID_ARGUMENT naming the field: neither or both of request and unit, a name that no
  // experiment of the tenant declares, a value that is not finite, a key over 128 bytes. A request
  // that no experiment assigned, or that is past its window, is no error: it is joined to nothing.
  absl::StatusOr<OutcomeReceipt> ReportOutcome(const Outcome& outcome);

  // The newest book, or that of `revision`. NOT_FOUND naming those there are. With units it takes
  // some tens of milliseconds at 200,000, most of them after the lock.
  absl::StatusOr<LedgerSnapshot> Snapshot(std::string_view experiment, std::string_view revision,
                                          bool with_units) const;
  // Every experiment's newest book, without units.
  std::vector<LedgerSnapshot> Snapshots() const;

 private:
  struct Books {
    AnalysisPlan plan;
    std::deque<std::shared_ptr<Book>> books;  // newest last
  };
  struct Remembered {
    std::weak_ptr<Book> book;
    std::uint64_t unit = 0;
    absl::Time admitted;
  };

  // The one that Snapshot asks for; null: none was opened, and any is wanted.
  absl::StatusOr<Book*> FindBook(std::string_view experiment, std::string_view revision) const;
  // The book of a request: null where its experiment is gone.
  Book* BookOf(const ExposedRequest& request);
  // The one of `revision` and `period` by the plan of now; null: there is none.
  std::shared_ptr<Book> CurrentBook(const Books& books, std::string_view revision,
                                    std::int64_t period) const;
  std::shared_ptr<Book> OpenBook(Books* books, std::string_view revision, std::int64_t period);
  void Remember(const ExposedRequest& request, const std::shared_ptr<Book>& book);
  absl::Status CheckOutcome(const Outcome& outcome) const;
  bool IsRepeated(const Outcome& outcome);

  const Options options_;
  mutable std::mutex mutex_;  // guards everything below
  absl::flat_hash_map<std::string, Books> experiments_;
  absl::flat_hash_map<std::uint64_t, Remembered> requests_;  // by tenant and request id
  std::deque<std::uint64_t> request_order_;
  absl::flat_hash_set<std::uint64_t> keys_;  // by tenant, outcome and key
  std::deque<std::uint64_t> key_order_;
};

}  // namespace penstock
