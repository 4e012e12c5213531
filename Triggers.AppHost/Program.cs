Console.WriteLine("Triggers.AppHost");
