#include "clients/cpp/cli/side_by_side_view.h"

#include <algorithm>
#include <optional>

#include "absl/strings/str_cat.h"
#include "clients/cpp/terminal/text.h"

namespace penstock::client {
namespace {

constexpr int kMinPaneWidth = 28;
constexpr char kSeparator[] = " │ ";
constexpr int kSeparatorWidth = 3;
constexpr int kFrameLines = 3;  // of a band: title, status, empty line

int CeilDivide(int a, int b) { return (a + b - 1) / b; }

struct Grid {
  int bands = 1;
  int per_band = 1;
  int width = kMinPaneWidth;
};

// As few bands as fit, then as few panes per band as that allows: seven panes in two bands are 4
// and 3, not 6 and 1.
Grid MakeGrid(int panes, int columns) {
  const int fit = std::max(1, (columns + kSeparatorWidth) / (kMinPaneWidth + kSeparatorWidth));
  Grid grid;
  grid.bands = CeilDivide(panes, std::min(fit, panes));
  grid.per_band = CeilDivide(panes, grid.bands);
  grid.width = (columns - kSeparatorWidth * (grid.per_band - 1)) / grid.per_band;
  return grid;
}

}  // namespace

std::vector<std::string> LayOutPanes(const std::vector<Pane>& panes, int columns,
                                     int max_text_lines, const Terminal& style) {
  std::vector<std::string> lines;
  if (panes.empty()) return lines;
  const Grid grid = MakeGrid(static_cast<int>(panes.size()), columns);
  for (std::size_t first = 0; first < panes.size(); first += grid.per_band) {
    const std::size_t end = std::min(panes.size(), first + grid.per_band);
    std::vector<std::vector<std::string>> texts;  // [panes of the band, lines]
    std::size_t height = 0;
    for (std::size_t i = first; i < end; ++i) {
      texts.push_back(Wrap(panes[i].text, grid.width));
      if (max_text_lines >= 0 && static_cast<int>(texts.back().size()) > max_text_lines) {
        texts.back().erase(texts.back().begin(), texts.back().end() - max_text_lines);
      }
      height = std::max(height, texts.back().size());
    }
    const auto add_line = [&](const auto& cell, const std::optional<Style>& cell_style) {
      std::string line;
      for (std::size_t i = first; i < end; ++i) {
        if (i > first) line += kSeparator;
        const std::string padded = PadRight(Shortened(cell(i), grid.width), grid.width);
        line += cell_style ? Styled(style, *cell_style, padded) : padded;
      }
      if (!cell_style) line.erase(line.find_last_not_of(' ') + 1);
      lines.push_back(std::move(line));
    };
    add_line([&](std::size_t i) { return panes[i].title; }, Style::kBold);
    for (std::size_t row = 0; row < height; ++row) {
      add_line(
          [&](std::size_t i) {
            const auto& text = texts[i - first];
            return row < text.size() ? text[row] : std::string();
          },
          std::nullopt);
    }
    add_line([&](std::size_t i) { return panes[i].status; }, Style::kDim);
    lines.emplace_back();
  }
  return lines;
}

SideBySideView::SideBySideView(Terminal& terminal, const std::vector<Answer>& answers, int choices)
    : terminal_(terminal), answers_(answers), choices_(choices) {
  for (const Answer& answer : answers) {
    for (int choice = 0; choice < choices; ++choice) {
      panes_.push_back(
          {.title = choices > 1 ? absl::StrCat(answer.label, " #", choice) : answer.label,
           .text = {},
           .status = {}});
    }
  }
}

Pane& SideBySideView::PaneOf(const Answer& answer, int choice) {
  const auto index = static_cast<std::size_t>(&answer - answers_.data());
  const int bounded = std::clamp(choice, 0, choices_ - 1);
  return panes_[index * choices_ + bounded];
}

void SideBySideView::OnText(const Answer& answer, int choice, std::string_view text) {
  PaneOf(answer, choice).text += Printable(text);
}

void SideBySideView::OnEnd(const Answer& answer) {
  for (int choice = 0; choice < choices_; ++choice) PaneOf(answer, choice).status = Summary(answer);
}

void SideBySideView::EraseDrawn() {
  if (drawn_lines_ > 0) terminal_.out << "\x1b[" << drawn_lines_ << "A\r\x1b[J";
  drawn_lines_ = 0;
}

void SideBySideView::Refresh() {
  // One column is left free: a full last column makes some terminals wrap.
  const int columns = terminal_.columns - 1;
  const Grid grid = MakeGrid(static_cast<int>(panes_.size()), columns);
  const int text_lines = std::max(1, (terminal_.rows - 1) / grid.bands - kFrameLines);
  const std::vector<std::string> lines = LayOutPanes(panes_, columns, text_lines, terminal_);
  EraseDrawn();
  for (const std::string& line : lines) terminal_.out << line << '\n';
  terminal_.out.flush();
  drawn_lines_ = static_cast<int>(lines.size());
}

void SideBySideView::Close() {
  EraseDrawn();
  for (const std::string& line : LayOutPanes(panes_, terminal_.columns - 1, -1, terminal_)) {
    terminal_.out << line << '\n';
  }
  terminal_.out.flush();
}

}  // namespace penstock::client
