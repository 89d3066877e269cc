import { Header } from "./components/Header.js";
import { JobList } from "./components/JobList.js";
import { JobsHead } from "./components/JobsHead.js";
import { Notices } from "./components/Notices.js";
import { StatusAnnouncer } from "./components/StatusAnnouncer.js";
import { TaskForm } from "./components/TaskForm.js";
import { taskForms } from "./taskForms.js";
import { useJobs } from "./useJobs.js";

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
