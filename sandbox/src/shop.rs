//! A legacy shop: a schema as such applications have it, and an application that keeps it busy.

use std::collections::VecDeque;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use mysql_async::Conn;
use mysql_async::prelude::Queryable;
use tokio::time::{MissedTickBehavior, interval, sleep};
use tokio_postgres::Client;
use tokio_util::sync::CancellationToken;

use crate::SandboxError;
use crate::mysqld::refused;
use till::{Till, Value};

mod schema;
mod till;

/// Article numbers and prices in cents.
const ARTICLES: [(&str, i64); 24] = [
    ("BREAD-RYE-750", 485),
    ("BUTTER-SALTED-250", 329),
    ("CANDLE-BEESWAX", 1250),
    ("CHAIR-OAK-BISTRO", 18900),
    ("COFFEE-ETHIOPIA-1KG", 2790),
    ("COFFEE-HOUSE-500", 1190),
    ("CUP-STONEWARE-BLUE", 1495),
    ("FIG-JAM-340", 645),
    ("FIG-TREE-POTTED", 3950),
    ("GRINDER-HAND", 8900),
    ("HONEY-LINDEN-500", 980),
    ("KETTLE-COPPER", 12900),
    ("KNIFE-BREAD-24", 5400),
    ("LAMP-DESK-BRASS", 14500),
    ("NAPKIN-LINEN-4", 3200),
    ("OIL-OLIVE-1L", 1875),
    ("PAN-IRON-28", 7450),
    ("PEPPER-KAMPOT-100", 1290),
    ("PLATE-STONEWARE-27", 1990),
    ("SALT-SEA-250", 595),
    ("SOAP-OLIVE-200", 720),
    ("TABLE-OAK-180", 89900),
    ("TEA-SENCHA-100", 1340),
    ("WINE-RED-2021", 1150),
];

const FIRST_NAMES: [&str; 36] = [
    "Ada", "Amina", "Anaïs", "Bruno", "Carmen", "Chidi", "Dmitri", "Eleni", "Emre", "Fatima", "Freya", "Giulia",
    "Hana", "Ingrid", "Ivo", "Jürgen", "Kwame", "Lars", "Leïla", "Łukasz", "Mai", "Marta", "Mateo", "Nia", "Noor",
    "Oskar", "Priya", "Rafael", "Sana", "Søren", "Tomás", "Uma", "Wei", "Yuki", "Zeynep", "Zoë",
];

const LAST_NAMES: [&str; 36] = [
    "Abebe",
    "Almeida",
    "Andersson",
    "Bakker",
    "Bianchi",
    "Castro",
    "Dubois",
    "Eriksen",
    "Fischer",
    "García",
    "Haddad",
    "Horváth",
    "Ito",
    "Jansen",
    "Kaya",
    "Kowalska",
    "Lindqvist",
    "Marković",
    "Mbeki",
    "Moreau",
    "Müller",
    "Nakamura",
    "Nguyen",
    "Novák",
    "O'Brien",
    "Okafor",
    "Papadaki",
    "Petrov",
    "Quispe",
    "Rossi",
    "Sharma",
    "Silva",
    "Tanaka",
    "Virtanen",
    "Weiß",
    "Yılmaz",
];

const CITIES: [&str; 24] = [
    "Aarhus",
    "Antwerp",
    "Bologna",
    "Brno",
    "Cork",
    "Gdańsk",
    "Ghent",
    "Graz",
    "İzmir",
    "Kraków",
    "Lille",
    "Lyon",
    "Malmö",
    "Münster",
    "Nantes",
    "Oulu",
    "Porto",
    "Rotterdam",
    "San Sebastián",
    "Tartu",
    "Thessaloniki",
    "Turin",
    "Utrecht",
    "Zürich",
];

const NOTES: [&str; 8] = [
    "please leave it with the neighbours",
    "a present: no invoice in the parcel, please",
    "ring twice, the bell is old",
    "deliver after 6 p.m.",
    "same as last time",
    "the dog is friendly",
    "back door, blue gate",
    "call before you come",
];

const METHODS: [&str; 4] = ["card", "transfer", "invoice", "voucher"];

/// How many orders the application keeps in mind for each next step.
const REMEMBERED: usize = 10_000;
const RECONNECT: Duration = Duration::from_millis(200);

/// What the application has done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sales {
    /// Customers registered.
    pub customers: u64,
    /// Orders placed.
    pub orders: u64,
    /// Lines of those orders.
    pub lines: u64,
    /// Orders paid.
    pub payments: u64,
    /// Orders shipped.
    pub shipped: u64,
    /// Orders cancelled.
    pub cancelled: u64,
    /// Cancelled orders deleted, with their lines.
    pub deleted: u64,
    /// Articles restocked.
    pub restocked: u64,
    /// Customers who moved.
    pub moved: u64,
}

/// The shop's application. It remembers what it has sold, and chooses what to do next by a pseudo-random sequence that its
/// seed determines.
#[derive(Debug)]
pub struct Shop {
    random: Random,
    seed: u64,
    customers: Vec<i64>,
    placed: VecDeque<(i64, i64)>,
    paid: VecDeque<i64>,
    cancelled: VecDeque<i64>,
    registered: u64,
    sales: Sales,
}

impl Shop {
    /// Creates the tables `customers`, `orders`, `order_lines`, `payments` and `inventory` in the schema `public` of a
    /// PostgreSQL, and stocks the inventory.
    ///
    /// # Errors
    /// [`SandboxError::Sql`], when the tables are there already for one.
    pub async fn create(client: &Client) -> Result<(), SandboxError> {
        let sql = format!("begin; {} {}; commit;", schema::POSTGRES, stock());
        let done = client.batch_execute(&sql).await;
        done.map_err(|source| SandboxError::Sql { what: "create the shop", source })
    }

    /// Creates the same tables in the chosen database of a MySQL or MariaDB, and stocks the inventory.
    ///
    /// # Errors
    /// [`SandboxError::MySql`], when the tables are there already for one. Tables that were created before the refusal stay.
    pub async fn create_mysql(conn: &mut Conn) -> Result<(), SandboxError> {
        for table in schema::MYSQL {
            conn.query_drop(table).await.map_err(refused("create the shop"))?;
        }
        conn.query_drop(stock()).await.map_err(refused("create the shop"))
    }

    /// An application that does the same for the same seed, as far as the database answers the same.
    pub fn new(seed: u64) -> Self {
        Self {
            random: Random::new(seed),
            seed,
            customers: Vec::new(),
            placed: VecDeque::new(),
            paid: VecDeque::new(),
            cancelled: VecDeque::new(),
            registered: 0,
            sales: Sales::default(),
        }
    }

    /// What was done so far.
    pub fn sales(&self) -> Sales {
        self.sales
    }

    /// Does `actions` things one after another as fast as the database answers, for a shop with a past.
    ///
    /// # Errors
    /// [`SandboxError::Sql`] or [`SandboxError::MySql`] with the first refusal.
    pub async fn trade(&mut self, url: &str, actions: u32) -> Result<Sales, SandboxError> {
        let mut till = Till::open(url).await?;
        for _ in 0..actions {
            self.act(&mut till).await?;
        }
        Ok(self.sales)
    }

    /// Does `rate_per_second` things a second until `stop` is cancelled; each is one transaction. The URL is one of
    /// `postgres:`, `mysql:` or `mariadb:`.
    ///
    /// It is a patient application: while the database is away it tries to connect again every 200 ms, and then makes up for
    /// at most a second of what it has missed. A transaction that was under way is given up, whether it was committed or not.
    ///
    /// # Errors
    /// [`SandboxError::Rate`] for a rate that is not above 0 and at most 100000; [`SandboxError::Sql`] or
    /// [`SandboxError::MySql`] when the database refuses a statement while the connection lives.
    pub async fn run(
        &mut self,
        url: &str,
        rate_per_second: f64,
        stop: &CancellationToken,
    ) -> Result<Sales, SandboxError> {
        if !(rate_per_second > 0.0 && rate_per_second <= 100_000.0) {
            return Err(SandboxError::Rate { rate: rate_per_second });
        }
        // A rate next to 0 has a period that no Duration holds: then the next action never comes.
        let period = Duration::try_from_secs_f64(1.0 / rate_per_second).unwrap_or(Duration::from_secs(86_400));
        match stop.run_until_cancelled(self.run_on(url, period)).await {
            Some(Err(error)) => Err(error),
            _ => Ok(self.sales),
        }
    }

    async fn run_on(&mut self, url: &str, period: Duration) -> Result<(), SandboxError> {
        loop {
            let Ok(mut till) = Till::open(url).await else {
                sleep(RECONNECT).await;
                continue;
            };
            // A new clock per connection: the time without a database is not made up for.
            let mut clock = interval(period);
            clock.set_missed_tick_behavior(MissedTickBehavior::Burst);
            loop {
                let due = clock.tick().await;
                if due.elapsed() > Duration::from_secs(1) {
                    clock.reset_immediately();
                }
                if let Err(error) = self.act(&mut till).await {
                    if till.is_lost(&error) {
                        break;
                    }
                    return Err(error);
                }
            }
            sleep(RECONNECT).await;
        }
    }

    async fn act(&mut self, till: &mut Till) -> Result<(), SandboxError> {
        till.begin().await?;
        if self.customers.len() < 5 {
            return self.register(till).await;
        }
        match self.random.below(100) {
            0..10 => self.register(till).await,
            10..30 => match self.placed.pop_front() {
                Some((order, total)) => self.pay(till, order, total).await,
                None => self.order(till).await,
            },
            30..48 => match self.paid.pop_front() {
                Some(order) => self.ship(till, order).await,
                None => self.order(till).await,
            },
            48..54 => match self.placed.pop_back() {
                Some((order, _)) => self.cancel(till, order).await,
                None => self.order(till).await,
            },
            54..58 => match self.cancelled.pop_front() {
                Some(order) => self.delete(till, order).await,
                None => self.order(till).await,
            },
            58..64 => self.restock(till).await,
            64..68 => self.relocate(till).await,
            _ => self.order(till).await,
        }
    }

    async fn register(&mut self, till: &mut Till) -> Result<(), SandboxError> {
        let (first, last) = (self.random.pick(&FIRST_NAMES), self.random.pick(&LAST_NAMES));
        self.registered += 1;
        // The seed keeps the customers of two shops in one database apart, the moment those of two runs.
        let (first_ascii, last_ascii, moment) = (ascii(first), ascii(last), moment() % 1_000_000_000_000);
        let email = format!("{first_ascii}.{last_ascii}.{:x}-{}-{moment}@example.org", self.seed, self.registered);
        let name = format!("{first} {last}");
        let city = *self.random.pick(&CITIES);
        let sql = "insert into customers (email, name, city) values (?, ?, ?)";
        let customer = till.insert(sql, &[(&email).into(), (&name).into(), city.into()]).await?;
        till.commit().await?;
        if self.customers.len() < REMEMBERED {
            self.customers.push(customer);
        }
        self.sales.customers += 1;
        Ok(())
    }

    async fn order(&mut self, till: &mut Till) -> Result<(), SandboxError> {
        let customer = *self.random.pick(&self.customers);
        let mut lines: Vec<(&str, i64, i64)> = Vec::new();
        for _ in 0..=self.random.below(4) {
            let (sku, cents) = *self.random.pick(&ARTICLES);
            let quantity = if cents > 10_000 { 1 } else { 1 + self.random.below(5).cast_signed() };
            if !lines.iter().any(|(other, ..)| *other == sku) {
                lines.push((sku, cents, quantity));
            }
        }
        // Always in the same order, so that two shops do not lock each other's inventory crosswise.
        lines.sort_unstable();
        let total: i64 = lines.iter().map(|(_, cents, quantity)| cents * quantity).sum();
        let note = self.note();
        let sql = "insert into orders (customer_id, total, note) values (?, ?, ?)";
        let note = note.as_deref().map_or(Value::Null, Value::Text);
        let order = till.insert(sql, &[customer.into(), (&money(total)).into(), note]).await?;
        for (number, (sku, cents, quantity)) in (1_i64..).zip(&lines) {
            let price = money(*cents);
            let values = [order.into(), number.into(), (*sku).into(), (*quantity).into(), (&price).into()];
            till.execute("insert into order_lines values (?, ?, ?, ?, ?)", &values).await?;
        }
        for (sku, _, quantity) in &lines {
            let sql = "update inventory set on_hand = on_hand - ? where sku = ?";
            till.execute(sql, &[(*quantity).into(), (*sku).into()]).await?;
        }
        till.commit().await?;
        remember(&mut self.placed, (order, total));
        self.sales.orders += 1;
        self.sales.lines += lines.len() as u64;
        Ok(())
    }

    /// Mostly none; now and then one so long that the database stores it out of line, as old applications have them.
    fn note(&mut self) -> Option<String> {
        match self.random.below(50) {
            0 => {
                let words = (0..1_500).map(|_| format!("{} {:x}", self.random.pick(&NOTES), self.random.next()));
                Some(words.collect::<Vec<_>>().join("; "))
            }
            1..10 => Some((*self.random.pick(&NOTES)).to_owned()),
            _ => None,
        }
    }

    async fn pay(&mut self, till: &mut Till, order: i64, total: i64) -> Result<(), SandboxError> {
        // Half of the id from the seed, half from the moment: a second run of a seed in one database has ids of its own.
        let id = uuid(self.random.next(), Random::new(moment()).next());
        let method = *self.random.pick(&METHODS);
        let sql = "insert into payments (id, order_id, amount, method) values (?, ?, ?, ?)";
        till.execute(sql, &[(&id).into(), order.into(), (&money(total)).into(), method.into()]).await?;
        till.execute("update orders set status = 'paid' where id = ?", &[order.into()]).await?;
        till.commit().await?;
        remember(&mut self.paid, order);
        self.sales.payments += 1;
        Ok(())
    }

    async fn ship(&mut self, till: &mut Till, order: i64) -> Result<(), SandboxError> {
        till.execute("update orders set status = 'shipped' where id = ?", &[order.into()]).await?;
        till.commit().await?;
        self.sales.shipped += 1;
        Ok(())
    }

    async fn cancel(&mut self, till: &mut Till, order: i64) -> Result<(), SandboxError> {
        till.execute("update orders set status = 'cancelled' where id = ?", &[order.into()]).await?;
        let sql = "update inventory
            set on_hand = on_hand + (select quantity from order_lines where order_id = ? and sku = inventory.sku)
            where sku in (select sku from order_lines where order_id = ?)";
        till.execute(sql, &[order.into(), order.into()]).await?;
        till.commit().await?;
        remember(&mut self.cancelled, order);
        self.sales.cancelled += 1;
        Ok(())
    }

    async fn delete(&mut self, till: &mut Till, order: i64) -> Result<(), SandboxError> {
        till.execute("delete from order_lines where order_id = ?", &[order.into()]).await?;
        till.execute("delete from orders where id = ?", &[order.into()]).await?;
        till.commit().await?;
        self.sales.deleted += 1;
        Ok(())
    }

    async fn restock(&mut self, till: &mut Till) -> Result<(), SandboxError> {
        let (sku, _) = *self.random.pick(&ARTICLES);
        let delivered = 20 + self.random.below(80).cast_signed();
        let sql = "update inventory set on_hand = on_hand + ? where sku = ?";
        till.execute(sql, &[delivered.into(), sku.into()]).await?;
        till.commit().await?;
        self.sales.restocked += 1;
        Ok(())
    }

    async fn relocate(&mut self, till: &mut Till) -> Result<(), SandboxError> {
        let (customer, city) = (*self.random.pick(&self.customers), *self.random.pick(&CITIES));
        till.execute("update customers set city = ? where id = ?", &[city.into(), customer.into()]).await?;
        till.commit().await?;
        self.sales.moved += 1;
        Ok(())
    }
}

/// The statement that fills the shelves.
fn stock() -> String {
    let rows: Vec<String> = ARTICLES.iter().map(|(sku, _)| format!("('{sku}', 500)")).collect();
    format!("insert into inventory values {}", rows.join(", "))
}

/// Microseconds since 1970.
fn moment() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or_default()
}

/// 128 bits as the text of a UUID, whatever version they happen to look like.
fn uuid(high: u64, low: u64) -> String {
    let (time, middle, version) = (high >> 32, high >> 16 & 0xFFFF, high & 0xFFFF);
    format!("{time:08x}-{middle:04x}-{version:04x}-{:04x}-{:012x}", low >> 48, low & 0xFFFF_FFFF_FFFF)
}

fn remember<T>(queue: &mut VecDeque<T>, item: T) {
    if queue.len() == REMEMBERED {
        queue.pop_front();
    }
    queue.push_back(item);
}

fn money(cents: i64) -> String {
    format!("{}.{:02}", cents / 100, cents % 100)
}

/// A name as it stands in an address: letters only, without accents where that is simple.
fn ascii(name: &str) -> String {
    let plain = |c: char| match c {
        'á' | 'à' => 'a',
        'ë' | 'é' => 'e',
        'í' | 'ï' | 'ı' => 'i',
        'ł' | 'Ł' => 'l',
        'ö' | 'ø' | 'ó' => 'o',
        'ü' | 'ú' => 'u',
        'ß' => 's',
        'ć' => 'c',
        other => other.to_ascii_lowercase(),
    };
    name.chars().map(plain).filter(char::is_ascii_alphabetic).collect()
}

/// Marsaglia's xorshift64, its state spread by a multiplication (xorshift64*).
#[derive(Debug)]
struct Random(u64);

impl Random {
    fn new(seed: u64) -> Self {
        // Zero would stay zero.
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    fn below(&mut self, limit: u64) -> u64 {
        // The upper bits are the good ones.
        (self.next() >> 16) % limit.max(1)
    }

    /// One of `items`, which must not be empty.
    fn pick<'a, T>(&mut self, items: &'a [T]) -> &'a T {
        let index = usize::try_from(self.below(items.len() as u64)).unwrap_or_default();
        &items[index]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_determines_the_sequence() {
        let draw = |seed| {
            let mut random = Random::new(seed);
            (0..50).map(|_| random.below(1_000)).collect::<Vec<_>>()
        };
        assert_eq!(draw(7), draw(7));
        assert_ne!(draw(7), draw(8));
        assert!(draw(0).iter().any(|n| *n != 0));
    }

    #[test]
    fn every_name_makes_an_address() {
        assert_eq!(ascii("O'Brien"), "obrien");
        for name in FIRST_NAMES.iter().chain(&LAST_NAMES) {
            assert!(ascii(name).len() >= 2, "{name}");
            assert_eq!(ascii(name).len(), name.chars().filter(|c| c.is_alphabetic()).count(), "{name}");
        }
    }

    #[test]
    fn an_id_has_the_form_of_a_uuid() {
        assert_eq!(uuid(0x0123_4567_89ab_cdef, 0x0f1e_2d3c_4b5a_6978), "01234567-89ab-cdef-0f1e-2d3c4b5a6978");
    }

    #[test]
    fn money_has_two_decimals() {
        assert_eq!(money(5), "0.05");
        assert_eq!(money(89_900), "899.00");
    }

    #[tokio::test]
    async fn a_rate_that_is_none_is_refused() {
        for rate in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            let outcome = Shop::new(1).run("postgres://localhost", rate, &CancellationToken::new()).await;
            assert!(matches!(outcome, Err(SandboxError::Rate { .. })), "{rate}");
        }
    }
}
