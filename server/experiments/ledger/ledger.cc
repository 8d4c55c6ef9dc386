#include "server/experiments/ledger/ledger.h"

#include <algorithm>
#include <cmath>
#include <set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "server/base/error.h"
#include "server/base/status_macros.h"

namespace penstock {
namespace {

// The running one, and the one before it: requests of it may still end, and its report be read.
constexpr std::size_t kMaxBooks = 2;
constexpr std::size_t kMaxKeyBytes = 128;

bool MeasuresAlike(const AnalysisPlan& a, const AnalysisPlan& b) {
  return a.unit_window == b.unit_window && a.outcome_window == b.outcome_window &&
         a.outcomes == b.outcomes && a.burn_in == b.burn_in;
}

std::uint64_t KeyOf(std::initializer_list<std::string_view> parts) {
  std::string bytes;
  for (const std::string_view part : parts) {
    bytes += part;
    bytes += '\0';
  }
  return UnitHash(bytes);
}

absl::string_view View(std::string_view text) { return {text.data(), text.size()}; }

}  // namespace

void Ledger::SetPlans(std::vector<AnalysisPlan> plans) {
  std::lock_guard<std::mutex> lock(mutex_);
  std::set<std::string> names;
  for (AnalysisPlan& plan : plans) {
    names.insert(plan.experiment.name);
    Books& books = experiments_[plan.experiment.name];
    books.plan = std::move(plan);
  }
  absl::erase_if(experiments_, [&](const auto& item) { return !names.contains(item.first); });
}

std::shared_ptr<Book> Ledger::CurrentBook(const Books& books, std::string_view revision,
                                          std::int64_t period) const {
  std::shared_ptr<Book> book;
  for (const auto& known : books.books) {
    const AnalysisPlan& plan = known->plan();
    if (plan.revision == revision && plan.period == period && MeasuresAlike(plan, books.plan)) {
      book = known;
    }
  }
  return book;
}

void Ledger::OpenBooks(const std::vector<RunningAnalysis>& running) {
  std::lock_guard<std::mutex> lock(mutex_);
  for (const RunningAnalysis& analysis : running) {
    const auto found = experiments_.find(analysis.experiment);
    if (found == experiments_.end()) continue;
    Books& books = found->second;
    const std::shared_ptr<Book> book = CurrentBook(books, analysis.revision, analysis.period);
    if (book == nullptr) {
      OpenBook(&books, analysis.revision, analysis.period);
    } else {  // the newest, but after a reload that was taken back
      std::erase(books.books, book);
      books.books.push_back(book);
    }
  }
}

std::shared_ptr<Book> Ledger::OpenBook(Books* books, std::string_view revision,
                                       std::int64_t period) {
  AnalysisPlan plan = books->plan;
  plan.revision = std::string(revision);
  plan.period = period;
  auto book = std::make_shared<Book>(std::move(plan), options_.clock->Now(), options_.measure);
  // One that measured nothing pushes out none that did.
  std::erase_if(books->books, [](const auto& known) { return known->empty(); });
  books->books.push_back(book);
  if (books->books.size() > kMaxBooks) books->books.pop_front();
  return book;
}

void Ledger::OnAdmitted(const ExposedRequest& request) {
  std::lock_guard<std::mutex> lock(mutex_);
  const auto found = experiments_.find(View(request.experiment));
  if (found == experiments_.end()) return;
  Books& books = found->second;
  std::shared_ptr<Book> book = CurrentBook(books, request.revision, request.period);
  if (book == nullptr) book = OpenBook(&books, request.revision, request.period);
  book->OnAdmitted(request);
  if (!books.plan.outcomes.empty()) Remember(request, book);
}

Book* Ledger::BookOf(const ExposedRequest& request) {
  const auto found = experiments_.find(View(request.experiment));
  if (found == experiments_.end()) return nullptr;
  Book* book = nullptr;  // the newest that was open when the request came
  for (const auto& known : found->second.books) {
    const AnalysisPlan& plan = known->plan();
    if (plan.revision != request.revision || plan.period != request.period) continue;
    if (book == nullptr || known->since() <= request.admitted) book = known.get();
  }
  return book;
}

void Ledger::OnFinished(const ExposedRequest& request, const RequestMeasures& measures) {
  std::lock_guard<std::mutex> lock(mutex_);
  Book* const book = BookOf(request);
  if (book != nullptr) book->OnFinished(request, measures, options_.clock->Now());
}

void Ledger::OnRouters(const std::vector<RouterLook>& looks) {
  std::lock_guard<std::mutex> lock(mutex_);
  const absl::Time now = options_.clock->Now();
  for (auto& [name, books] : experiments_) {
    if (books.books.empty()) continue;
    for (const RouterLook& look : looks) books.books.back()->OnRouter(look, now);
  }
}

void Ledger::OnPaired(const ExposedRequest& request, std::string_view arm, const PairedSums& sums) {
  std::lock_guard<std::mutex> lock(mutex_);
  Book* const book = BookOf(request);
  if (book != nullptr) book->OnPaired(request, arm, sums, options_.clock->Now());
}

void Ledger::OnTextEnded(const ExposedRequest& request, std::optional<std::int64_t> scored) {
  std::lock_guard<std::mutex> lock(mutex_);
  Book* const book = BookOf(request);
  if (book != nullptr) book->OnTextEnded(request, scored, options_.clock->Now());
}

void Ledger::Remember(const ExposedRequest& request, const std::shared_ptr<Book>& book) {
  const std::uint64_t key = KeyOf({request.tenant, request.request_id});
  if (requests_.insert_or_assign(key, Remembered{book, book->UnitOf(request), request.admitted})
          .second) {
    request_order_.push_back(key);
  }
  while (request_order_.size() > options_.max_remembered) {
    requests_.erase(request_order_.front());
    request_order_.pop_front();
  }
}

absl::Status Ledger::CheckOutcome(const Outcome& outcome) const {
  const bool has_unit = !outcome.session_id.empty() || !outcome.user.empty();
  if (outcome.request_id.empty() != has_unit) {
    return InvalidField("request_id", has_unit ? "both it and unit" : "neither it nor unit",
                        "the request, or the unit, that the outcome is of");
  }
  if (!std::isfinite(outcome.value)) {
    return InvalidField("value", absl::StrCat(outcome.value), "a finite number");
  }
  if (outcome.idempotency_key.size() > kMaxKeyBytes) {
    return InvalidField("idempotency_key", absl::StrCat(outcome.idempotency_key.size(), " bytes"),
                        absl::StrCat("at most ", kMaxKeyBytes));
  }
  std::set<std::string> declared;
  for (const auto& [name, books] : experiments_) {
    if (!books.plan.experiment.audience.contains(std::string(outcome.tenant))) continue;
    declared.insert(books.plan.outcomes.begin(), books.plan.outcomes.end());
  }
  if (!declared.contains(std::string(outcome.name))) {
    return InvalidField(
        "name", absl::StrCat("'", View(outcome.name), "'"),
        declared.empty()
            ? "an outcome of an experiment; none of this tenant's declares any"
            : absl::StrCat("an outcome of an experiment: ", absl::StrJoin(declared, ", ")));
  }
  return absl::OkStatus();
}

bool Ledger::IsRepeated(const Outcome& outcome) {
  if (outcome.idempotency_key.empty()) return false;
  const std::uint64_t key = KeyOf({outcome.tenant, outcome.name, outcome.idempotency_key});
  if (!keys_.insert(key).second) return true;
  key_order_.push_back(key);
  while (key_order_.size() > options_.max_remembered) {
    keys_.erase(key_order_.front());
    key_order_.pop_front();
  }
  return false;
}

absl::StatusOr<OutcomeReceipt> Ledger::ReportOutcome(const Outcome& outcome) {
  std::lock_guard<std::mutex> lock(mutex_);
  PENSTOCK_RETURN_IF_ERROR(CheckOutcome(outcome));
  OutcomeReceipt receipt;
  receipt.repeated = IsRepeated(outcome);
  if (receipt.repeated) return receipt;
  const absl::Time now = options_.clock->Now();
  const auto join = [&](Book* book, std::uint64_t unit, std::optional<absl::Time> begun) {
    const std::vector<std::string>& names = book->plan().outcomes;
    const auto found = std::find(names.begin(), names.end(), outcome.name);
    if (found == names.end()) return;
    const int index = static_cast<int>(found - names.begin());
    if (!book->OnOutcome(unit, index, outcome.value, begun, now)) return;
    receipt.experiments.push_back(book->plan().experiment.name);
  };
  if (!outcome.request_id.empty()) {
    const auto found = requests_.find(KeyOf({outcome.tenant, outcome.request_id}));
    if (found == requests_.end()) return receipt;
    const std::shared_ptr<Book> book = found->second.book.lock();
    if (book != nullptr) join(book.get(), found->second.unit, found->second.admitted);
    return receipt;
  }
  for (auto& [name, books] : experiments_) {
    const UnitKind kind = books.plan.experiment.unit;
    const std::string_view key = kind == UnitKind::kSession ? outcome.session_id
                                 : kind == UnitKind::kUser  ? outcome.user
                                                            : std::string_view();
    if (key.empty() || books.books.empty()) continue;
    join(books.books.back().get(),
         UnitHash(absl::StrCat(View(outcome.tenant), absl::string_view("\0", 1), View(key))),
         std::nullopt);
  }
  return receipt;
}

absl::StatusOr<Book*> Ledger::FindBook(std::string_view experiment,
                                       std::string_view revision) const {
  const auto found = experiments_.find(View(experiment));
  if (found == experiments_.end()) {
    std::vector<std::string> names;
    for (const auto& [name, books] : experiments_) names.push_back(name);
    std::sort(names.begin(), names.end());
    return MakeError(absl::StatusCode::kNotFound,
                     absl::StrCat("experiment: got ", View(experiment), ", running now: ",
                                  names.empty() ? "none" : absl::StrJoin(names, ", ")),
                     {.reason = "UNKNOWN_EXPERIMENT", .field = "experiment", .retry_after = {}});
  }
  const Books& books = found->second;
  std::vector<std::string> revisions;
  for (auto book = books.books.rbegin(); book != books.books.rend(); ++book) {
    if (revision.empty() || (*book)->plan().revision == revision) return book->get();
    const std::string& measured = (*book)->plan().revision;
    if (revisions.empty() || revisions.back() != measured) revisions.push_back(measured);
  }
  if (revision.empty()) return nullptr;
  return MakeError(absl::StatusCode::kNotFound,
                   absl::StrCat("revision: got ", View(revision), ", measured: ",
                                revisions.empty() ? "none" : absl::StrJoin(revisions, ", ")),
                   {.reason = "UNKNOWN_REVISION", .field = "revision", .retry_after = {}});
}

absl::StatusOr<LedgerSnapshot> Ledger::Snapshot(std::string_view experiment,
                                                std::string_view revision, bool with_units) const {
  LedgerSnapshot snapshot;
  SharedUnitPages pages;
  {
    std::lock_guard<std::mutex> lock(mutex_);
    const absl::Time now = options_.clock->Now();
    PENSTOCK_ASSIGN_OR_RETURN(Book* const book, FindBook(experiment, revision));
    if (book == nullptr) {
      snapshot = Book(experiments_.find(View(experiment))->second.plan, now, {}).Snapshot(now);
    } else {
      snapshot = book->Snapshot(now);
      if (with_units) pages = book->ShareUnits();
    }
  }
  snapshot.has_units = with_units;
  // Copied without the lock: requests go on meanwhile.
  if (with_units) snapshot.units = SortedRecords(pages);
  return snapshot;
}

std::vector<LedgerSnapshot> Ledger::Snapshots() const {
  std::lock_guard<std::mutex> lock(mutex_);
  const absl::Time now = options_.clock->Now();
  std::vector<LedgerSnapshot> snapshots;
  for (const auto& [name, books] : experiments_) {
    if (!books.books.empty()) snapshots.push_back(books.books.back()->Snapshot(now));
  }
  std::sort(snapshots.begin(), snapshots.end(),
            [](const auto& a, const auto& b) { return a.experiment < b.experiment; });
  return snapshots;
}

}  // namespace penstock
