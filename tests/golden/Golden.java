import io.debezium.engine.ChangeEvent;
import io.debezium.engine.DebeziumEngine;
import io.debezium.engine.format.Json;
import io.debezium.engine.format.KeyValueHeaderChangeEventFormat;
import java.io.IOException;
import java.io.Reader;
import java.nio.file.Files;
import java.nio.file.Path;
import java.sql.Connection;
import java.sql.DriverManager;
import java.sql.SQLException;
import java.sql.Statement;
import java.util.ArrayList;
import java.util.List;
import java.util.Properties;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.TimeUnit;

/**
 * Runs a workload beside Debezium's engine and writes down what the engine makes of it: one line of JSON for each
 * event, with its key, its headers and its value as they came.
 *
 * Arguments: postgres or mysql, the server's port on 127.0.0.1, the folder with before.sql and workload.sql, and variants: the
 * options of each stand in VARIANT.properties, its events are written to VARIANT.jsonl.
 */
public class Golden {
    /** The table whose first row ends the workload. */
    private static final String LAST = "\"table\":\"finish\"";

    public static void main(String[] args) throws Exception {
        boolean isPostgres = args[0].equals("postgres");
        Path folder = Path.of(args[2]);
        try {
            for (int at = 3; at < args.length; at++) {
                run(isPostgres, args[1], folder, args[at]);
            }
        } catch (Exception e) {
            e.printStackTrace();
            // The engine's threads would go on.
            System.exit(1);
        }
    }

    private static void run(boolean isPostgres, String port, Path folder, String variant) throws Exception {
        String base = isPostgres ? "jdbc:postgresql://127.0.0.1:" + port + "/" : "jdbc:mysql://127.0.0.1:" + port + "/";
        String user = isPostgres ? "postgres" : "root";
        try (Connection server = DriverManager.getConnection(base + (isPostgres ? "postgres" : ""), user, "")) {
            execute(server, "drop database if exists shop");
            execute(server, "create database shop");
        }
        Path home = Files.createTempDirectory("golden");
        Properties options = new Properties();
        options.setProperty("name", "golden");
        options.setProperty("connector.class", isPostgres
            ? "io.debezium.connector.postgresql.PostgresConnector"
            : "io.debezium.connector.mysql.MySqlConnector");
        options.setProperty("offset.storage", "org.apache.kafka.connect.storage.FileOffsetBackingStore");
        options.setProperty("offset.storage.file.filename", home.resolve("offsets").toString());
        options.setProperty("database.hostname", "127.0.0.1");
        options.setProperty("database.port", port);
        options.setProperty("database.user", user);
        options.setProperty("database.password", "");
        options.setProperty("topic.prefix", "shop");
        options.setProperty("snapshot.mode", "initial");
        // What Debezium leaves out of its stream by itself.
        options.setProperty("skipped.operations", "none");
        options.setProperty("include.unknown.datatypes", "true");
        // Kafka's converter shows a column's default where the row holds null.
        options.setProperty("converter.replace.null.with.default", "false");
        options.setProperty("key.converter.replace.null.with.default", "false");
        options.setProperty("value.converter.replace.null.with.default", "false");
        options.setProperty("converter.schemas.enable", "false");
        if (isPostgres) {
            options.setProperty("database.dbname", "shop");
            options.setProperty("plugin.name", "pgoutput");
            options.setProperty("slot.drop.on.stop", "true");
        } else {
            options.setProperty("database.server.id", "4711");
            options.setProperty("database.include.list", "shop");
            options.setProperty("driver.allowPublicKeyRetrieval", "true");
            options.setProperty("include.schema.changes", "false");
            options.setProperty("schema.history.internal", "io.debezium.storage.file.history.FileSchemaHistory");
            options.setProperty("schema.history.internal.file.filename", home.resolve("history").toString());
        }
        try (Reader reader = Files.newBufferedReader(folder.resolve(variant + ".properties"))) {
            options.load(reader);
        }
        List<String> lines = new ArrayList<>();
        CountDownLatch snapshotDone = new CountDownLatch(1);
        CountDownLatch done = new CountDownLatch(1);
        String[] failure = new String[1];
        DebeziumEngine<ChangeEvent<String, String>> engine = DebeziumEngine
            .create(KeyValueHeaderChangeEventFormat.of(Json.class, Json.class, Json.class))
            .using(options)
            .using((ok, message, error) -> {
                failure[0] = ok ? null : message + " " + error;
                snapshotDone.countDown();
                done.countDown();
            })
            .notifying(event -> {
                lines.add(line(event));
                String value = event.value() == null ? "" : event.value();
                if (value.contains("\"snapshot\":\"last\"")) {
                    snapshotDone.countDown();
                }
                if (value.contains(LAST) && !value.contains("\"op\":\"r\"")) {
                    done.countDown();
                }
            })
            .build();
        try (Connection shop = DriverManager.getConnection(base + "shop", user, "")) {
            script(shop, folder.resolve("before.sql"));
            ExecutorService executor = Executors.newSingleThreadExecutor();
            executor.execute(engine);
            await(snapshotDone, "the snapshot", failure);
            script(shop, folder.resolve("workload.sql"));
            await(done, "the last event", failure);
            engine.close();
            executor.shutdown();
            executor.awaitTermination(60, TimeUnit.SECONDS);
        }
        Files.write(folder.resolve(variant + ".jsonl"), lines);
        System.err.println(variant + ": " + lines.size() + " events");
    }

    private static void await(CountDownLatch latch, String what, String[] failure) throws InterruptedException {
        if (!latch.await(120, TimeUnit.SECONDS) || failure[0] != null) {
            System.err.println(what + " did not come: " + failure[0]);
            System.exit(1);
        }
    }

    /** Statements, each ended by a semicolon at a line's end. */
    private static void script(Connection connection, Path file) throws IOException, SQLException {
        for (String statement : Files.readString(file).split(";\n")) {
            if (!statement.isBlank()) {
                execute(connection, statement.strip());
            }
        }
    }

    private static void execute(Connection connection, String sql) throws SQLException {
        try (Statement statement = connection.createStatement()) {
            statement.setEscapeProcessing(false);
            statement.execute(sql);
        } catch (SQLException e) {
            throw new SQLException(sql, e);
        }
    }

    private static String line(ChangeEvent<String, String> event) {
        StringBuilder headers = new StringBuilder();
        event.headers().forEach(header -> {
            // Which run of the engine it was.
            if (!header.getKey().startsWith("__debezium.context.")) {
                headers.append(headers.length() == 0 ? "" : ",");
                headers.append('"').append(header.getKey()).append("\":").append(header.getValue());
            }
        });
        return "{\"topic\":\"" + event.destination() + "\",\"key\":" + event.key() + ",\"headers\":{" + headers
            + "},\"value\":" + event.value() + "}";
    }
}
