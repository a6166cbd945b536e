//! The row of a job as JSON text.

use super::job_row::JobRow;
use super::json_string::push_string;

impl JobRow {
    /// `JobState` of `index.d.ts`, or `JobSummary` without `batches`.
    pub fn to_json(&self, batches: Option<&str>) -> String {
        let mut out = String::with_capacity(self.config.len() + batches.map_or(0, str::len) + 200);
        out.push_str("{\"id\":");
        push_string(&mut out, &self.id);
        out.push_str(",\"config\":");
        out.push_str(&self.config);
        out.push_str(",\"status\":");
        push_string(&mut out, &self.status);
        if let Some(batches) = batches {
            out.push_str(",\"batches\":");
            out.push_str(batches);
        }
        out.push_str(",\"totalRecords\":");
        out.push_str(&self.total_records.to_string());
        for (key, time) in [(",\"startedAt\":", self.started_at), (",\"completedAt\":", self.completed_at)] {
            if let Some(time) = time {
                out.push_str(key);
                out.push_str(&time.to_string());
            }
        }
        if self.distributed {
            out.push_str(",\"distributed\":true");
        }
        out.push('}');
        out
    }
}
