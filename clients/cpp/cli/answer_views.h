// How answers look: alone, side by side, line by line, or as blocks.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "clients/cpp/cli/answers.h"

namespace penstock::client {

// The view that fits `terminal` and the number of answers (choices of one request count as
// answers): one answer: its text as it comes; several: side by side on a terminal of at least 100
// columns, labelled lines on a narrower one, and one labelled block after the other where the
// output is no terminal. `choices`: of each request.
std::unique_ptr<AnswerView> MakeAnswerView(Terminal& terminal, const std::vector<Answer>& answers,
                                           int choices);

// One column of a side-by-side view.
struct Pane {
  std::string title;
  std::string text;    // printable
  std::string status;  // last line; empty while it runs
};

// `panes` in bands of equally wide columns, none narrower than 28, on `columns` columns. With
// `max_text_lines` ≥ 0 each pane shows only the last so many lines of its text.
std::vector<std::string> LayOutPanes(const std::vector<Pane>& panes, int columns,
                                     int max_text_lines, const Terminal& style);

}  // namespace penstock::client
