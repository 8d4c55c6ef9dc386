#include "clients/cpp/cli/answer_views.h"

#include <algorithm>
#include <map>

#include "absl/strings/str_cat.h"
#include "clients/cpp/cli/side_by_side_view.h"
#include "clients/cpp/terminal/text.h"

namespace penstock::client {
namespace {

constexpr int kSideBySideColumns = 100;

std::string Label(const Answer& answer, int choice, int choices) {
  return choices > 1 ? absl::StrCat(answer.label, " #", choice) : answer.label;
}

// The text of the one answer there is, byte for byte unless a terminal shows it.
class PlainView final : public AnswerView {
 public:
  explicit PlainView(Terminal& terminal) : terminal_(terminal) {}

  void OnText(const Answer& /*answer*/, int /*choice*/, std::string_view text) override {
    terminal_.out << (terminal_.out_is_terminal ? Printable(text) : std::string(text));
    last_ = text.back();
  }
  void OnEnd(const Answer& answer) override {
    if (last_ != '\n') terminal_.out << '\n';
    if (terminal_.out_is_terminal && answer.status.ok()) {
      terminal_.out << Styled(terminal_, Style::kDim, Summary(answer)) << '\n';
    }
  }
  void Refresh() override { terminal_.out.flush(); }

 private:
  Terminal& terminal_;
  char last_ = '\n';
};

// Every full line as soon as it is complete, behind its label.
class LabelledLinesView final : public AnswerView {
 public:
  LabelledLinesView(Terminal& terminal, const std::vector<Answer>& answers, int choices)
      : terminal_(terminal), choices_(choices) {
    for (const Answer& answer : answers) {
      label_width_ = std::max(label_width_, DisplayWidth(Label(answer, choices - 1, choices)));
    }
  }

  void OnText(const Answer& answer, int choice, std::string_view text) override {
    const std::string label = Label(answer, choice, choices_);
    std::string& pending = pending_[label];
    pending += Printable(text);
    const std::vector<std::string> lines = Wrap(pending, TextWidth());
    for (std::size_t i = 0; i + 1 < lines.size(); ++i) WriteLine(label, lines[i]);
    pending = lines.back();
  }
  void OnEnd(const Answer& answer) override {
    for (int choice = 0; choice < choices_; ++choice) {
      const std::string label = Label(answer, choice, choices_);
      if (!pending_[label].empty()) WriteLine(label, pending_[label]);
      pending_.erase(label);
    }
    WriteLine(answer.label, Styled(terminal_, Style::kDim, Summary(answer)));
  }
  void Refresh() override { terminal_.out.flush(); }

 private:
  int TextWidth() const { return std::max(20, terminal_.columns - label_width_ - 4); }
  void WriteLine(const std::string& label, const std::string& line) {
    terminal_.out << Styled(terminal_, Style::kCyan, PadRight(label, label_width_)) << " │ " << line
                  << '\n';
  }

  Terminal& terminal_;
  const int choices_;
  int label_width_ = 0;
  std::map<std::string, std::string> pending_;  // label → text without its line end yet
};

// Nothing until the end, then one block per answer: readable in a log, in the order that was asked
// for.
class BlocksView final : public AnswerView {
 public:
  BlocksView(Terminal& terminal, const std::vector<Answer>& answers, int choices)
      : terminal_(terminal), answers_(answers), choices_(choices) {}

  void OnText(const Answer&, int, std::string_view) override {}
  void OnEnd(const Answer&) override {}
  void Close() override {
    for (const Answer& answer : answers_) {
      for (const v1::Choice& choice : answer.response.choices()) {
        terminal_.out << "── " << Label(answer, choice.index(), choices_) << " ──\n"
                      << choice.text() << '\n';
      }
      if (answer.response.choices().empty()) terminal_.out << "── " << answer.label << " ──\n";
      terminal_.out << "[" << Summary(answer) << "]\n\n";
    }
    terminal_.out.flush();
  }

 private:
  Terminal& terminal_;
  const std::vector<Answer>& answers_;
  const int choices_;
};

}  // namespace

std::unique_ptr<AnswerView> MakeAnswerView(Terminal& terminal, const std::vector<Answer>& answers,
                                           int choices) {
  if (answers.size() * static_cast<std::size_t>(choices) == 1) {
    return std::make_unique<PlainView>(terminal);
  }
  if (!terminal.out_is_terminal) return std::make_unique<BlocksView>(terminal, answers, choices);
  if (terminal.columns < kSideBySideColumns) {
    return std::make_unique<LabelledLinesView>(terminal, answers, choices);
  }
  return std::make_unique<SideBySideView>(terminal, answers, choices);
}

}  // namespace penstock::client
