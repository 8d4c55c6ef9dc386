// Answers in columns, growing together.
#pragma once

#include <string>
#include <vector>

#include "clients/cpp/cli/answer_views.h"

namespace penstock::client {

// While answers run, a region that fits on the screen shows the end of each, and is drawn again at
// every change; at the end it gives way to all texts in full, so that scrolling back shows them.
class SideBySideView final : public AnswerView {
 public:
  // `answers` must outlive the view.
  SideBySideView(Terminal& terminal, const std::vector<Answer>& answers, int choices);

  void OnText(const Answer& answer, int choice, std::string_view text) override;
  void OnEnd(const Answer& answer) override;
  void Refresh() override;
  void Close() override;

 private:
  Pane& PaneOf(const Answer& answer, int choice);
  void EraseDrawn();

  Terminal& terminal_;
  const std::vector<Answer>& answers_;
  const int choices_;
  std::vector<Pane> panes_;  // [answers · choices]
  int drawn_lines_ = 0;      // above the cursor
};

}  // namespace penstock::client
