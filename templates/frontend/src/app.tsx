import { Header } from "./components/header.js";
import { JobList } from "./components/job-list.js";
import { JobsHead } from "./components/jobs-head.js";
import { Notices } from "./components/notices.js";
import { StatusAnnouncer } from "./components/status-announcer.js";
import { TaskForm } from "./components/task-form.js";
import { taskForms } from "./task-forms.js";
import { useJobs } from "./use-jobs.js";

export function App() {
  const { jobs, checkedAt, outage, workerMissing, retryNow, add, clear } = useJobs();
  return (
    <>
      <Header />
      <main className="layout">
        <section aria-labelledby="forms-title" className="forms">
          <h2 id="forms-title">Enqueue a job</h2>
          {taskForms.map((form) => (
            <TaskForm key={form.path} form={form} onQueued={add} />
          ))}
        </section>
        <section aria-labelledby="jobs-title" className="jobs">
          <JobsHead empty={jobs.length === 0} onClear={clear} />
          <Notices outage={outage} workerMissing={workerMissing} onRetry={retryNow} />
          <JobList jobs={jobs} now={checkedAt} />
        </section>
      </main>
      <StatusAnnouncer jobs={jobs} />
    </>
  );
}
