/* Every bound on what somebody outside controls, in one place. Sizes in bytes, times in ms. */
#ifndef DAVIT_LIMITS_H
#define DAVIT_LIMITS_H

/* Not aligned by the tool, so that one addition does not move all lines. */
/* clang-format off */
#define KIB (1024u)
#define MIB (1024u * 1024u)

/* pipeline files */
#define LIMIT_YAML_BYTES (2u * MIB)       /* one file */
#define LIMIT_YAML_DEPTH 100u
#define LIMIT_YAML_NODES 100000u          /* aliases counted as if written out */
#define LIMIT_YAML_TOTAL (16u * MIB)      /* all files of a pipeline together */
#define LIMIT_COMPILE_WORK 2000000u       /* nodes and pairs visited or made by one compilation */
#define LIMIT_EXPRESSION (16u * KIB)      /* one rules:if */
#define LIMIT_INCLUDES 500u
#define LIMIT_INCLUDE_NAME 2048u          /* path, URL or address of an included file */
#define LIMIT_PIPELINE_JOBS 2000u
#define LIMIT_PIPELINE_STAGES 256u
#define LIMIT_JOB_DEFINITIONS 10000u       /* in a file, before rules choose */
#define LIMIT_JOB_NEEDS 200u
#define LIMIT_EXTENDS_DEPTH 11u
#define LIMIT_PARALLEL 200u
#define LIMIT_NAME 255u                   /* names of jobs, stages, projects, workers, tags */
#define LIMIT_TAGS 50u
#define LIMIT_VARIABLES 1000u             /* of a job or pipeline */
#define LIMIT_VARIABLE_VALUE (64u * KIB)
#define LIMIT_EXPANDED_VALUE (256u * KIB)
#define LIMIT_EXPANDED_TOTAL (1u * MIB)   /* all expanded values of one set */
#define LIMIT_GLOB_BYTES 4096u            /* one pattern; longer ones match nothing */
#define LIMIT_GLOB_ALTERNATIVES 1024u     /* of the braces of one pattern */
#define LIMIT_GLOB_STEPS 500000u          /* characters looked at by one match */
#define LIMIT_GLOB_BRACES 64u             /* groups in one alternative */
#define LIMIT_DIAGS 100u                  /* errors reported of one compilation */
#define LIMIT_DIAG_NOTES 8u               /* of one error */
#define LIMIT_TIMEOUT_MS (30ull * 24 * 3600 * 1000)
#define LIMIT_EXPIRE_MS (3650ull * 24 * 3600 * 1000) /* what should last longer lasts for ever */

#define LIMIT_PIPELINE_DEPTH 2u           /* of child pipelines below one without a parent */
#define LIMIT_PIPELINE_FAMILY 1000u       /* child pipelines below one without a parent, in all */
#define LIMIT_OUTER_NEEDS 5u              /* of one job: needs outside of its pipeline */
#define LIMIT_OUTER_NEED_SEARCH 200u      /* pipelines looked at for the newest good one of a ref */
#define LIMIT_ID_TOKENS 16u               /* of one job */
#define LIMIT_CONFIRMATION (4u * KIB)     /* the question of manual_confirmation */
#define LIMIT_ID_TOKEN_AUDIENCES 20u      /* of one token */
#define LIMIT_COMPARED_REFS 32u           /* of rules:changes:compare_to in one file */
#define LIMIT_CACHES 4u                   /* of one job */
#define LIMIT_CACHE_KEY_FILES 2u
#define LIMIT_CACHE_FALLBACK_KEYS 5u
#define LIMIT_SERVICES 50u                /* of one job */
#define LIMIT_CONTAINER_ARGUMENTS 200u    /* of an entrypoint or a command */
#define LIMIT_REPORTS 30u                 /* of one job, by type */
#define LIMIT_RELEASE_LINKS 100u
#define LIMIT_RELEASE_TEXT (64u * KIB)    /* one of its texts, unexpanded */
#define LIMIT_TRIGGER_CONFIG (64u * KIB)  /* the root file of a child pipeline */

/* messages */
#define LIMIT_WIRE_MESSAGE (1u * MIB)     /* nng frame, either way */
#define LIMIT_HELLO (640u * KIB)          /* frame of somebody who has said nothing before */
#define LIMIT_JOB_SPEC (768u * KIB)
#define LIMIT_LOG_CHUNK (64u * KIB)
#define LIMIT_UNPACK_FACTOR 32u           /* arena of an unpack: factor * frame + slack */
#define LIMIT_UNPACK_SLACK (1u * MIB)
#define LIMIT_COMMAND (16u * MIB)
#define LIMIT_PLAN (12u * MIB)            /* packed, it travels in a command */
#define LIMIT_ID_TOKEN_AUDIENCE 4096u     /* one, expanded */
#define LIMIT_BUNDLE (64u * MIB)          /* the files of child pipelines, kept as a blob */
#define LIMIT_HELD_JOBS 1024u             /* in one message of another kind than these two: */
#define LIMIT_HELD_LIST 21024u            /* in one Hello or Heartbeat: slots and actions */

/* times that come again */
#define LIMIT_CRON_BYTES 256u             /* one expression */
#define LIMIT_CRON_TIME_S (1ll << 36)     /* either way of 1970: two thousand years */
#define LIMIT_TZ_BYTES (64u * KIB)        /* one file of the database of time zones */

/* HTTP */
#define LIMIT_HTTP_BODY (16u * MIB)       /* JSON requests */
#define LIMIT_HTTP_JSON_DEPTH 64u
#define LIMIT_HTTP_JSON_CONTAINERS 20000u /* objects and lists of one body */
#define LIMIT_HTTP_JSON_VALUES 500000u
#define LIMIT_BLOB_BYTES (4ull * 1024 * MIB)
#define LIMIT_UNFINISHED 1024u      /* uploads that may go on later */
#define LIMIT_OWNER_UNFINISHED 32u  /* of them those of one token */
#define LIMIT_UNFINISHED_BYTES (64ull * 1024 * MIB) /* as large as they will be */
#define LIMIT_WHOLE_UPLOAD (8u * MIB) /* what Davit's programs send in one request */
#define LIMIT_HTTP_CONNECTIONS 1024u
#define LIMIT_HTTP_STREAMS 768u           /* followers of events and logs among them */
#define LIMIT_HTTP_PATHS 400000u          /* file names of one submit */
#define LIMIT_HTTP_MEMORY (64u * KIB)     /* header memory of one connection */
#define LIMIT_PAGE 200u                   /* rows of one listing */
#define LIMIT_IDEMPOTENCY_KEY 255u        /* as clients give it */
#define LIMIT_SSE_BYTES (4u * MIB)        /* one event of a stream that we read */

/* logs */
#define LIMIT_LOG_QUEUE (64u * MIB)       /* chunks that wait for the log writer */
#define LIMIT_LOG_FILES 512u              /* logs kept open */

/* store and turn */
#define LIMIT_STORE_VALUE 4080u           /* one LMDB value; larger ones are chunked rows */
#define LIMIT_STORE_KEY 511u
#ifndef LIMIT_MAP_BYTES                   /* a build for valgrind has less: tests/e2e/README.md */
#define LIMIT_MAP_BYTES (64ull * 1024 * MIB)
#endif
#define LIMIT_DISK_RESERVE (64u * MIB)    /* less free on the store's disk: no new work */
#define LIMIT_INBOX 65536u                /* commands and messages waiting for the turn */
#define LIMIT_INBOX_BYTES (256u * MIB)
#define LIMIT_TURN_COMMANDS 512u          /* from the inbox into one transaction */
#define LIMIT_EVENTS 200000u              /* kept in the store */
#define LIMIT_REQUEST_KEEP_MS (24ull * 3600 * 1000)

#define LIMIT_FINISHED_JOBS 256u          /* of one JobsFinished */
#define LIMIT_ENQUEUE_JOBS 1024u          /* without a pipeline, in one request */
#define LIMIT_RETRIES 2                   /* of one job, by itself */
#define LIMIT_ENQUEUE_LINES 10000u        /* lines of a script, words of a command */
#define LIMIT_PRIORITY 100                /* either way; what is above is for administrators */
#define LIMIT_PRIORITY_ADMIN 1000
#define LIMIT_NOT_BEFORE_MS (366ull * 24 * 3600 * 1000) /* how far ahead a job may be enqueued */
#define LIMIT_ENQUEUE_BYTES (768u * KIB)  /* all of them, packed */
#define LIMIT_INCLUDE_PROJECTS 256u      /* whose place the broker was told */
#define LIMIT_STORED_VARIABLES 1000u      /* of a project, a group, the installation; each */
#define LIMIT_MASKED_VALUE (16u * KIB)    /* of a stored variable that is masked */
#define LIMIT_MASTER_KEYS 16u             /* that are known at once */
#define LIMIT_REWRAP_BATCH 200u           /* keys of variables wrapped anew by one command */
#define LIMIT_TOKENS 10000u
#define LIMIT_TOKEN_PROJECTS 100u         /* names and patterns of one token */
#define LIMIT_TOKEN_MS (3650ull * 24 * 3600 * 1000)
#define LIMIT_TRAIL 100000u               /* rows of the audit trail */
#define LIMIT_POOLS 1000u
#define LIMIT_CLASSES 4096u               /* different sets of what jobs ask for */
#define LIMIT_PROTECTED_REFS 200u         /* patterns of branches of one project, and of tags */
#define LIMIT_POOL_PROJECTS 1000u         /* names and patterns of one pool */
#define LIMIT_RESOURCE_GROUPS 10000u      /* with a mode, of one project */
#define LIMIT_CLIENT_REQUESTS 32u         /* of one client, not yet answered */
#define LIMIT_CLIENT_WATCHED 100000u      /* jobs whose end one client waits for */
#define LIMIT_WATCHED 2000000u            /* of all clients together */
#define LIMIT_IDS_SKIPPED  (1u << 20)     /* more than are given before a flush, however late */
#define LIMIT_EXPIRE_BATCH 2000u          /* rows that one command deletes for their age, about */

/* TLS */
#define LIMIT_CERT_NAMES 64u              /* host names and addresses of the broker */
#define LIMIT_JOIN_TOKENS 10000u          /* not yet forgotten */
#define LIMIT_JOIN_TOKEN_MS (30ull * 24 * 3600 * 1000)
#define LIMIT_CERT_MS (10ull * 365 * 24 * 3600 * 1000) /* the life of a worker's certificate */
#define LIMIT_CERT_CHAIN 8u               /* certificates that a server shows */
#define LIMIT_CERT_NAME 253u              /* one of them */

/* actions */
#define LIMIT_WORKER_ACTIONS 20000u       /* in one worker's hands at a time */
#define LIMIT_ACTION_HEADERS 64u          /* of one request */
#define LIMIT_ACTION_BODY (256u * KIB)    /* of one request, unexpanded and expanded */
#define LIMIT_ACTION_RANGES 32u           /* of expected statuses */
#define LIMIT_ACTION_REDIRECTS 20u
#define LIMIT_ACTION_ANSWER (4u * MIB)    /* of an answer; what is behind is not looked at */
#define LIMIT_ACTION_RESULT (16u * KIB)   /* of an answer's body that comes back */
#define LIMIT_ACTION_DATA (64u * KIB)     /* of a driver's answer */
#define LIMIT_ACTION_TEXT 500u            /* one line for people */
#define LIMIT_PREFORK_NAME 64u            /* of a pool of processes */
#define LIMIT_PREFORK_POOLS 32u           /* in one worker */
#define LIMIT_PREFORK_PROCESSES 1024u     /* in one pool */
#define LIMIT_PREFORK_ANSWER (1u * MIB)   /* one line of a process */
#define LIMIT_PREFORK_LOG (64u * KIB)     /* of one job; what is behind is left out */
#define LIMIT_ACTION_CA (64u * KIB)       /* certificates of authorities, PEM */
#define LIMIT_FENCES 10000u               /* targets that one worker remembers */

/* workers */
#define LIMIT_WORKER_SLOTS 1024u
#define LIMIT_SESSIONS 20000u             /* connections of workers */
#define LIMIT_OTHER_FDS 2048u             /* descriptors they leave to the rest of the broker */
#define LIMIT_HEARTBEAT_MIN_MS 20u
#define LIMIT_HEARTBEAT_MS 60000u         /* a worker asks for no slower one */
#define LIMIT_LEASE_MS 600000u
#define LIMIT_IMAGE_NAME 1024u            /* of a container's image, expanded */
#define LIMIT_ENGINE_ANSWER (4u * MIB)    /* one answer of a Docker Engine */
#define LIMIT_ENGINE_LINE (64u * KIB)     /* one line of what it says while it pulls an image */
#define LIMIT_ENGINE_TEXT 4096u           /* one text in its answers */
#define LIMIT_ENGINE_PORTS 64u            /* that one image listens on */
#define LIMIT_ENGINE_OPTIONS 100u         /* volumes, or patterns, of one worker */
#define LIMIT_ENGINE_PULL (256u * MIB)    /* all that it says while it pulls one image */
#define LIMIT_AUTH_CONFIG (256u * KIB)    /* a config.json with credentials of registries */
#define LIMIT_LOG_BYTES (64ull * MIB)     /* of one attempt: head and tail are kept */
#define LIMIT_MASK_BYTES (2u * MIB)       /* all forms of a job's secrets that are looked for */
#define LIMIT_LOG_WINDOW (256u * KIB)     /* unacknowledged log bytes of one job */
#define LIMIT_JOB_ARTIFACTS 32u           /* the archive, pages, and all reports */
#define LIMIT_JOB_UPLOADS (32ull * 1024 * MIB)       /* with one job's token: artifacts, caches */
#define LIMIT_PIPELINE_UPLOADS (256ull * 1024 * MIB) /* with the tokens of all jobs of a pipeline */
#define LIMIT_DOTENV_VARIABLES 150u       /* of one job's dotenv reports */
#define LIMIT_DOTENV_BYTES (64u * KIB)
#define LIMIT_PIPELINE_DOTENV (256u * KIB) /* of all jobs of a pipeline together */
#define LIMIT_URL (4u * KIB)              /* of an environment, expanded or not */
#define LIMIT_RELEASE_BYTES (256u * KIB)  /* a release with its description and links */
#define LIMIT_CACHE_KEY (4u * KIB)
#define LIMIT_PROJECT_CACHES 512u
#define LIMIT_PROJECT_CACHE_BYTES (16ull * 1024 * MIB)
#define LIMIT_PROJECT_PAGES 1000u         /* path prefixes under which a project publishes */
#define LIMIT_PAGES_BYTES (1024ull * MIB)  /* one published folder, unpacked */
#define LIMIT_PAGE_PATH 4096u             /* below a published folder */
#define LIMIT_ARTIFACT_FILES 200000u
#define LIMIT_ARTIFACT_BYTES (4ull * 1024 * MIB)
#define LIMIT_RELEASE_TEXT (64u * KIB)    /* a release's description */
#define LIMIT_KEY_FILES 10000u            /* hashed for one cache key */
#define LIMIT_WORKER_CACHE_BYTES (8ull * 1024 * MIB) /* copies of caches that a worker keeps */
#define LIMIT_COVERAGE_LINE (64u * KIB)   /* a longer line is searched in pieces */
#define LIMIT_TARGETS 1000u               /* of rollouts, in one installation */
#define LIMIT_DRIVER_SETTINGS 32u         /* of one driver */
#define LIMIT_DRIVER_SETTING 4096u        /* bytes of one */
#define LIMIT_FREEZES 50u                 /* of one target */
#define LIMIT_NOTIFY 10u                  /* likewise */
#define LIMIT_ROUTER_SERVERS 1000u        /* of both slots together */
#define LIMIT_MAP_FILE (4u * MIB)         /* of a router */
#define LIMIT_METRICS_PAGE (8u * MIB)     /* of one instance */
#define LIMIT_ROLLOUT_PLAN_STEPS 200u
#define LIMIT_ROLLOUT_PLACES 64u          /* of a target */
#define LIMIT_ROLLOUT_INSTANCES 100u      /* of a version in one place */
#define LIMIT_INSTANCE_LOG (4u * MIB)     /* that the driver process keeps, twice */
#define LIMIT_PROCESS_FOLDERS 1000u       /* of one slot of a service */
#define LIMIT_INSTANCE_DETAIL 200u        /* bytes of a line that an instance said */
#define LIMIT_ROLLOUT_METRICS 20u         /* of one rollout */
#define LIMIT_ROLLOUT_STEPS 16u           /* decided of one rollout in one round */
#define LIMIT_ROLLOUT_ROUND 256u          /* rollouts that are decided in one round */
#define LIMIT_ROLLOUT_NOTES 500u          /* of one rollout, the newest */
#define LIMIT_ROLLOUT_STEP_NOTES 32u      /* of one step */
#define LIMIT_ROLLOUT_ACTIONS 1024u       /* rows of one rollout at a time */
#define LIMIT_ROLLOUT_ARGS (64u * KIB)    /* of one action */
#define LIMIT_ROLLOUT_STATE (64u * KIB)   /* statistics of one metric */
#define LIMIT_ROLLOUT_TEXT 500u           /* one line for people */
#define LIMIT_ROLLOUT_APPROVALS 100u
#define LIMIT_ROLLOUT_GROUP 64u           /* rollouts in lockstep */
#define LIMIT_ROLLOUT_SCRIPT 1000u        /* lines of one step */
#define LIMIT_ROLLOUT_PLAN (512u * KIB)   /* a plan with its target */
#define LIMIT_SERVICE_ROLLOUTS 50u        /* ended ones of a service, the newest */
#define LIMIT_KEEP_SNAPSHOTS 100u         /* good ones of a service */
#define LIMIT_SNAPSHOT_ROW (512u * KIB)   /* with its variables */
#define LIMIT_SNAPSHOT_ARTIFACTS 256u
#define LIMIT_TARGET (256u * KIB)         /* one of them */
#define LIMIT_METRIC_SERIES 2000u         /* counters of one metric: instances of both versions */
#define LIMIT_METRIC_BUCKETS 200u         /* of one histogram */
#define LIMIT_LOAD_RATE 1000u             /* requests a second of synthetic load */
#define LIMIT_LOAD_OPEN 200u              /* of these at a time without an answer */
#define LIMIT_LOAD_MS 600000u             /* of one action */
#define LIMIT_NGINX_FILE (256u * KIB)     /* that the router nginx writes */
#define LIMIT_SNAPSHOT_FILES 1000000u    /* with folders, .git included */
#define LIMIT_SNAPSHOT_BYTES (32ull * 1024 * MIB)

#endif
