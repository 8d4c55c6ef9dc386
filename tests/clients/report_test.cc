#include <sstream>

#include "clients/cpp/report/report_page.h"
#include "clients/cpp/report/report_text.h"
#include "clients/cpp/terminal/text.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace penstock::client {
namespace {

using ::testing::AllOf;
using ::testing::ContainsRegex;
using ::testing::HasSubstr;
using ::testing::Not;

v1::ExperimentReport AReport() {
  v1::ExperimentReport report;
  report.set_experiment("mlp-vs-linear");
  report.set_revision("0123abcd");
  report.set_period(1);
  report.set_unit("user");
  report.set_control("control");
  report.set_replicas(2);
  report.set_sample_ratio_p_value(0.7);
  report.mutable_primary()->set_metric("latency");
  report.mutable_primary()->set_better("lower");
  report.mutable_primary()->set_min_effect(0.05);
  for (const std::string name : {"control", "mlp"}) {
    v1::ArmReport* arm = report.add_arms();
    arm->set_name(name);
    arm->set_router(name == "control" ? "linear" : "mlp-<v3>");
    arm->set_share(5000);
    arm->set_is_control(name == "control");
    arm->set_requests(1'234'567);
    for (const std::string metric : {"latency", "error_rate", "imbalance"}) {
      v1::MetricReport* entry = arm->add_metrics();
      entry->set_metric(metric);
      entry->set_primary(metric == "latency");
      entry->set_units(2000);
      entry->set_value(metric == "latency" ? 1.5 : 0.01);
      if (metric == "latency") {
        entry->set_unit("s");
        entry->set_p50(1.25);
        entry->set_p90(2.5);
        entry->set_p99(3.75);
      }
      if (arm->is_control() || metric == "imbalance") continue;
      v1::ArmComparison* found = entry->mutable_comparison();
      found->set_difference(-0.5);
      found->set_lower(-0.56);
      found->set_upper(-0.44);
      found->set_detectable(0.07);
      found->set_relative_difference(-0.25);
      found->set_relative_lower(-0.28);
      found->set_relative_upper(-0.22);
      if (metric != "latency") entry->set_adjusted_p(0.04);
    }
    if (arm->is_control()) continue;
    arm->set_verdict("better");
    arm->set_words("mlp is better than control in latency: difference -0.5 s.");
  }
  v1::ReportMethod* method = report.add_methods();
  method->set_what("interval");
  method->set_how("confidence sequence");
  method->set_source("arXiv:2103.06476");
  return report;
}

std::string TextAt(const v1::ExperimentReport& report, int columns) {
  std::istringstream in;
  std::ostringstream out, err;
  Terminal terminal{.in = in, .out = out, .err = err};
  terminal.columns = columns;
  return ReportText(report, terminal);
}

int WidestLine(const std::string& text) {
  int widest = 0;
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);) widest = std::max(widest, DisplayWidth(line));
  return widest;
}

TEST(ReportTextTest, SaysTheVerdictFirstAndEverythingThatItRestsOn) {
  const std::string text = TextAt(AReport(), 120);
  EXPECT_THAT(text, AllOf(HasSubstr("mlp-vs-linear · revision 0123abcd · period 1 · by user"),
                          HasSubstr("2 replicas"), HasSubstr("mlp is better than control"),
                          HasSubstr("1,234,567"), HasSubstr("-0.56 … -0.44"), HasSubstr("±0.07"),
                          HasSubstr("●"), HasSubstr("arXiv:2103.06476")));
  EXPECT_LT(text.find("mlp is better"), text.find("1,234,567"));
  EXPECT_LE(WidestLine(text), 120);
}

TEST(ReportTextTest, ANarrowTerminalLosesPlotsAndQuantilesButNoInterval) {
  const std::string text = TextAt(AReport(), 60);
  EXPECT_THAT(text, AllOf(HasSubstr("-0.56 … -0.44"), Not(HasSubstr("●")), Not(HasSubstr("p90"))));
  EXPECT_LE(WidestLine(text), 80);
}

TEST(ReportTextTest, AWarningStandsAheadOfAll) {
  v1::ExperimentReport report = AReport();
  report.add_warnings("SAMPLE-RATIO MISMATCH (p = 1e-9)");
  report.set_sample_ratio_alarm(true);
  report.set_summary("No verdict: the arms do not get their shares of units.");
  const std::string text = TextAt(report, 100);
  EXPECT_LT(text.find("! SAMPLE-RATIO MISMATCH"), text.find("No verdict"));
  EXPECT_THAT(text, Not(HasSubstr("mlp is better")));
}

TEST(ReportTextTest, TextsAreCountedByTheArmThatWroteThem) {
  v1::ExperimentReport report = AReport();
  EXPECT_THAT(TextAt(report, 80), Not(HasSubstr("texts that each arm wrote")));
  report.mutable_arms(0)->set_texts_scored(4321);
  report.mutable_arms(0)->set_text_tokens(86'420);
  report.mutable_arms(1)->set_texts_dropped(17);
  EXPECT_THAT(TextAt(report, 80),
              AllOf(HasSubstr("texts that each arm wrote, drawn to be scored under the others"),
                    ContainsRegex("control +4,321 +0 +20.0"), ContainsRegex("mlp +0 +17 +–")));
  EXPECT_THAT(ReportPage(report), AllOf(HasSubstr("<td>control</td><td>4,321</td><td>0</td>"
                                                  "<td>86,420</td><td>20.0</td>"),
                                        HasSubstr("<td>mlp</td><td>0</td><td>17</td>")));
}

TEST(ReportTextTest, AnEmptyReportIsShownToo) {
  EXPECT_THAT(TextAt(v1::ExperimentReport(), 80), HasSubstr("sample ratio"));
}

TEST(IntervalBarTest, StandsOnAnAxisAroundZero) {
  EXPECT_EQ(IntervalBar(-0.5, 0, 0.5, 1, 9), "  ├─●─┤  ");
  EXPECT_EQ(IntervalBar(0.25, 0.5, 0.75, 1, 9), "    │├●┤ ");
  EXPECT_EQ(IntervalBar(-9, -1, 9, 1, 9), "●───────▶");
  EXPECT_EQ(IntervalBar(-9, 0, 0.5, 1, 9), "◀───●─┤  ");
}

TEST(ReportPageTest, IsAPageWithAPlotAndEscapesNames) {
  const std::string page = ReportPage(AReport());
  EXPECT_THAT(page, AllOf(HasSubstr("<!doctype html>"), HasSubstr("<svg"), HasSubstr("-25 %"),
                          HasSubstr("mlp-&lt;v3&gt;"), Not(HasSubstr("mlp-<v3>")),
                          HasSubstr("class='verdict better'")));
}

TEST(ReportPageTest, AFileThatCannotBeWrittenIsNamed) {
  EXPECT_EQ(WriteReportPage(v1::ExperimentReport(), "/nonexistent/page.html").message(),
            "--html: got /nonexistent/page.html, want a file that can be written: No such file or "
            "directory");
}

}  // namespace
}  // namespace penstock::client
